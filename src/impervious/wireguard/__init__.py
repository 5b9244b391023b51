"""One WireGuard interface: its peers follow a database, and its buyers get files that work.

Change peers by storing what is wanted and calling `Reconciler.reconcile`. `Wg` programs a real interface; a test may
give another `WireGuard`. `check` says whether this machine can sell; `qr` draws, and is imported where that is done.
"""

from impervious.wireguard.addresses import Subnet
from impervious.wireguard.client import ClientConfig, interface_name, write_private
from impervious.wireguard.keys import PresharedKey, PrivateKey, PublicKey, buyer_key
from impervious.wireguard.peers import Host, Interface, Network, Peer, Transfer, WantedPeer, WireGuard
from impervious.wireguard.reconcile import Conflict, Plan, Reconciler, Report, Wanted, foreign_networks, plan
from impervious.wireguard.terms import Terms
from impervious.wireguard.traffic import Traffic
from impervious.wireguard.wg import Wg

__all__ = (
    "ClientConfig",
    "Conflict",
    "Host",
    "Interface",
    "Network",
    "Peer",
    "Plan",
    "PresharedKey",
    "PrivateKey",
    "PublicKey",
    "Reconciler",
    "Report",
    "Subnet",
    "Terms",
    "Traffic",
    "Transfer",
    "Wanted",
    "WantedPeer",
    "Wg",
    "WireGuard",
    "buyer_key",
    "foreign_networks",
    "interface_name",
    "plan",
    "write_private",
)
