"""What a simulated node knows of its network, as LND's messages."""

import hashlib
from typing import Final

from impervious.pb import lnrpc, simnet
from impervious.sim.engine.channel import Channel
from impervious.sim.engine.topology import Policy
from impervious.sim.engine.view import Edge, Numbers, Peer, View, features_of
from impervious.sim.engine.world import Forward, Node
from impervious.sim.rpcs import Known
from impervious.units import Msat, sat_credited

COLOR: Final = "#3399ff"
"""lnd's default."""

_FEATURES: Final = {
    0: "data-loss-protect",
    5: "upfront-shutdown-script",
    7: "gossip-queries",
    8: "tlv-onion",
    11: "gossip-queries-ex",
    12: "static-remote-key",
    14: "payment-addr",
    17: "multi-path-payments",
    19: "wumbo-channels",
    23: "anchors-zero-fee-htlc-tx",
    27: "shutdown-any-segwit",
    31: "amp",
    45: "explicit-commitment-type",
    47: "scid-alias",
    51: "zero-conf",
    55: "keysend",
}
PEER_PORT: Final = 9735
_MILLION: Final = 1_000_000


def features(bits: frozenset[int]) -> dict[int, lnrpc.Feature]:
    """Feature bits with their names; even ones are required."""
    return {
        bit: lnrpc.Feature(name=_FEATURES.get(bit, "unknown"), is_required=bit % 2 == 0, is_known=bit in _FEATURES)
        for bit in sorted(bits)
    }


def funding_txid(channel: Channel) -> bytes:
    """The transaction that opened a channel, in the order people write it; there is none on any chain."""
    return hashlib.sha256(b"funding %d" % channel.chan_id).digest()


def channel_point(channel: Channel) -> str:
    """The output that a channel is, as LND writes it."""
    return f"{funding_txid(channel).hex()}:0"


def node(value: Node, view: View, *, now_s: int) -> lnrpc.LightningNode:
    """A node of DescribeGraph. Of one that has announced nothing, only its key is known."""
    if not view.announced(value):
        return lnrpc.LightningNode(pub_key=value.pubkey.hex)
    return lnrpc.LightningNode(
        last_update=now_s,
        pub_key=value.pubkey.hex,
        alias=value.name,
        color=COLOR,
        features=features(features_of(value)),
    )


def node_info(value: Known, view: View, *, now_s: int, with_channels: bool) -> lnrpc.NodeInfo:
    """GetNodeInfo's answer. Of a node that has announced nothing, only its key is known."""
    return lnrpc.NodeInfo(
        node=lnrpc.LightningNode(
            last_update=now_s if value.announced else 0,
            pub_key=value.pubkey.hex,
            alias=value.alias,
            color=COLOR if value.announced else "",
            features=features(value.features),
        ),
        num_channels=len(value.channels),
        total_capacity=sum(sat_credited(channel.capacity) for channel in value.channels),
        channels=[edge(view.edge(channel), view, now_s=now_s) for channel in value.channels] if with_channels else [],
    )


def edge(value: Edge, view: View, *, now_s: int) -> lnrpc.ChannelEdge:
    """A channel of the graph."""
    first, second = value.names
    one, other = value.policies
    return lnrpc.ChannelEdge(
        channel_id=value.channel.chan_id,
        chan_point=channel_point(value.channel),
        last_update=now_s,
        node1_pub=view.pubkey(first).hex(),
        node2_pub=view.pubkey(second).hex(),
        capacity=sat_credited(value.channel.capacity),
        node1_policy=policy(one, value.channel, now_s=now_s),
        node2_policy=policy(other, value.channel, now_s=now_s),
    )


def policy(value: Policy, channel: Channel, *, now_s: int) -> lnrpc.RoutingPolicy:
    """What one end of a channel asks for."""
    return lnrpc.RoutingPolicy(
        time_lock_delta=value.cltv_delta,
        min_htlc=value.min_htlc,
        fee_base_msat=value.base_fee,
        fee_rate_milli_msat=value.fee_ppm,
        disabled=value.disabled,
        max_htlc_msat=channel.capacity - channel.reserve,
        last_update=now_s,
    )


def peer(value: Peer, name: str) -> simnet.Peer:
    """A row of ListPeers, as the node called `name` sees it; address, bytes and times are made up."""
    sides = [(channel, channel.side(name)) for channel in value.channels]
    return simnet.Peer(
        pub_key=value.node.pubkey.hex,
        address=f"127.0.0.1:{PEER_PORT}",
        bytes_sent=1000 + sum(channel.offered[side] for channel, side in sides) * 1452,
        bytes_recv=1000 + sum(channel.offered[1 - side] for channel, side in sides) * 1452,
        sat_sent=sum(sat_credited(channel.sent[side]) for channel, side in sides),
        sat_recv=sum(sat_credited(channel.sent[1 - side]) for channel, side in sides),
        inbound=any(side == 1 for _, side in sides),
        ping_time=1000,
        sync_type=simnet.PeerSyncType.ACTIVE_SYNC,
        features=features(features_of(value.node)),
        flap_count=1,
        last_flap_ns=1,
        last_ping_payload=bytes(80),
    )


def network_info(value: Numbers) -> simnet.NetworkInfo:
    """GetNetworkInfo's answer."""
    sizes = [sat_credited(capacity) for capacity in value.capacities]
    return simnet.NetworkInfo(
        graph_diameter=value.diameter,
        avg_out_degree=2 * len(sizes) / max(1, value.nodes),
        max_out_degree=value.max_degree,
        num_nodes=value.nodes,
        num_channels=len(sizes),
        total_network_capacity=sum(sizes),
        avg_channel_size=sum(sizes) / max(1, len(sizes)),
        min_channel_size=min(sizes, default=0),
        max_channel_size=max(sizes, default=0),
        median_channel_size_sat=sat_credited(value.median),
    )


def fee_report(view: View) -> simnet.FeeReportResponse:
    """FeeReport's answer."""
    day, week, month = (sat_credited(Msat(view.earned(days))) for days in (1, 7, 30))
    return simnet.FeeReportResponse(
        channel_fees=[
            simnet.ChannelFeeReport(
                channel_point=channel_point(channel),
                base_fee_msat=asks.base_fee,
                fee_per_mil=asks.fee_ppm,
                fee_rate=asks.fee_ppm / _MILLION,
                chan_id=channel.chan_id,
            )
            for channel, asks in view.own_policies()
        ],
        day_fee_sum=day,
        week_fee_sum=week,
        month_fee_sum=month,
    )


def forward(value: Forward, view: View, *, aliases: bool) -> simnet.ForwardingEvent:
    """A row of ForwardingHistory."""
    return simnet.ForwardingEvent(
        timestamp=int(value.at_s),
        chan_id_in=value.chan_in,
        chan_id_out=value.chan_out,
        amt_in=sat_credited(value.amount_in),
        amt_out=sat_credited(value.amount_out),
        fee=sat_credited(value.fee),
        fee_msat=value.fee,
        amt_in_msat=value.amount_in,
        amt_out_msat=value.amount_out,
        timestamp_ns=int(value.at_s * 1e9),
        peer_alias_in=view.alias_beyond(value.chan_in) if aliases else "",
        peer_alias_out=view.alias_beyond(value.chan_out) if aliases else "",
        incoming_htlc_id=value.htlc_in,
        outgoing_htlc_id=value.htlc_out,
    )
