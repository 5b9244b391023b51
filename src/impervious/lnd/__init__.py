"""A Trio client for LND: `async with open_lnd(LndConfig(…)) as node:`.

It knows at every moment how far LND is from serving (`LndNode.status`), connects again when LND was away, and turns
LND's errors into ours. `LndNode` is what the rooms above take as their Lightning node (`node.LightningNode`); by itself
it can call everything else in LND too (`LndNode.call`, `LndNode.stream`).
"""

from impervious.lnd.credentials import Credentials, read_credentials
from impervious.lnd.faults import LndRefused, MacaroonRefused
from impervious.lnd.node import LndNode, open_lnd
from impervious.lnd.readiness import LIGHTNING_NODE, NOTHING, PAYMENT_NODE, Requirements
from impervious.lnd.rpcs import Rpc

__all__ = (
    "LIGHTNING_NODE",
    "NOTHING",
    "PAYMENT_NODE",
    "Credentials",
    "LndNode",
    "LndRefused",
    "MacaroonRefused",
    "Requirements",
    "Rpc",
    "open_lnd",
    "read_credentials",
)
