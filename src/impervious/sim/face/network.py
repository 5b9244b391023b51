"""The calls of lnrpc.Lightning that programs and people make and a daemon does not: graph, peers, fees, macaroons."""

from collections.abc import Mapping
from typing import Final

from grpclib.const import Handler, Status

from impervious.pb import lnrpc, simnet
from impervious.sim.engine.addresses import AddressKind
from impervious.sim.engine.answers import LndError
from impervious.sim.face import graph
from impervious.sim.face.answering import Gate, unary
from impervious.sim.face.permissions import ACTIONS, ENTITIES, REQUIRED, URI, Permission
from impervious.sim.lnd import SimLnd

_PREFIX: Final = "/lnrpc.Lightning/"
_KINDS: Final = {
    simnet.AddressType.WITNESS_PUBKEY_HASH: (AddressKind.WITNESS, False),
    simnet.AddressType.NESTED_PUBKEY_HASH: (AddressKind.NESTED, False),
    simnet.AddressType.UNUSED_WITNESS_PUBKEY_HASH: (AddressKind.WITNESS, True),
    simnet.AddressType.UNUSED_NESTED_PUBKEY_HASH: (AddressKind.NESTED, True),
    simnet.AddressType.TAPROOT_PUBKEY: (AddressKind.TAPROOT, False),
    simnet.AddressType.UNUSED_TAPROOT_PUBKEY: (AddressKind.TAPROOT, True),
}


class Network:
    """What is asked of lnrpc.Lightning besides `Lightning`."""

    def __init__(self, lnd: SimLnd, gate: Gate) -> None:
        self._lnd = lnd
        self._rpcs = lnd.rpcs
        self._gate = gate

    def __mapping__(self) -> Mapping[str, Handler]:
        methods = {
            "ListPeers": unary(self._list_peers, simnet.ListPeersRequest, simnet.ListPeersResponse),
            "DescribeGraph": unary(self._describe_graph, simnet.ChannelGraphRequest, simnet.ChannelGraph),
            "GetChanInfo": unary(self._chan_info, simnet.ChanInfoRequest, lnrpc.ChannelEdge),
            "GetNetworkInfo": unary(self._network_info, simnet.NetworkInfoRequest, simnet.NetworkInfo),
            "FeeReport": unary(self._fee_report, simnet.FeeReportRequest, simnet.FeeReportResponse),
            "ForwardingHistory": unary(
                self._forwarding_history, simnet.ForwardingHistoryRequest, simnet.ForwardingHistoryResponse
            ),
            "NewAddress": unary(self._new_address, simnet.NewAddressRequest, simnet.NewAddressResponse),
            "PendingChannels": unary(
                self._pending_channels, simnet.PendingChannelsRequest, simnet.PendingChannelsResponse
            ),
            "ClosedChannels": unary(self._closed_channels, simnet.ClosedChannelsRequest, simnet.ClosedChannelsResponse),
            "BakeMacaroon": unary(self._bake, simnet.BakeMacaroonRequest, simnet.BakeMacaroonResponse),
        }
        return {_PREFIX + name: handler for name, handler in methods.items()}

    async def _list_peers(self, message: simnet.ListPeersRequest) -> simnet.ListPeersResponse:
        view = await self._rpcs.view()
        return simnet.ListPeersResponse(peers=[graph.peer(each, self._lnd.name) for each in view.peers()])

    async def _describe_graph(self, message: simnet.ChannelGraphRequest) -> simnet.ChannelGraph:
        view, now_s = await self._rpcs.view(), self._rpcs.now_s
        hidden = message.include_unannounced
        return simnet.ChannelGraph(
            nodes=[graph.node(each, view, now_s=now_s) for each in view.nodes(unannounced=hidden)],
            edges=[graph.edge(each, view, now_s=now_s) for each in view.edges(unannounced=hidden)],
        )

    async def _chan_info(self, message: simnet.ChanInfoRequest) -> lnrpc.ChannelEdge:
        view = await self._rpcs.view()
        if not message.chan_id and not message.chan_point:
            raise LndError("specify either chan_id or chan_point")
        if message.chan_point:
            points = {graph.channel_point(each.channel): each for each in view.edges(unannounced=True)}
            if message.chan_point not in points:
                raise LndError("edge not found", Status.NOT_FOUND)
            return graph.edge(points[message.chan_point], view, now_s=self._rpcs.now_s)
        return graph.edge(view.edge_of(message.chan_id), view, now_s=self._rpcs.now_s)

    async def _network_info(self, message: simnet.NetworkInfoRequest) -> simnet.NetworkInfo:
        return graph.network_info((await self._rpcs.view()).numbers())

    async def _fee_report(self, message: simnet.FeeReportRequest) -> simnet.FeeReportResponse:
        return graph.fee_report(await self._rpcs.view())

    async def _forwarding_history(self, message: simnet.ForwardingHistoryRequest) -> simnet.ForwardingHistoryResponse:
        view = await self._rpcs.view()
        found = view.forwards(
            start_s=message.start_time,
            end_s=message.end_time,
            offset=message.index_offset,
            limit=message.num_max_events,
            into=frozenset(message.incoming_chan_ids),
            out=frozenset(message.outgoing_chan_ids),
        )
        return simnet.ForwardingHistoryResponse(
            forwarding_events=[graph.forward(each, view, aliases=message.peer_alias_lookup) for each in found],
            last_offset_index=message.index_offset + len(found),
        )

    async def _new_address(self, message: simnet.NewAddressRequest) -> simnet.NewAddressResponse:
        if message.account not in ("", "default"):
            raise LndError(f"account name '{message.account}' not found")
        if message.type not in _KINDS:
            raise LndError(f"unknown address type: {int(message.type)}")
        kind, unused = _KINDS[message.type]
        return simnet.NewAddressResponse(address=await self._rpcs.new_address(kind, unused=unused))

    async def _pending_channels(self, message: simnet.PendingChannelsRequest) -> simnet.PendingChannelsResponse:
        await self._rpcs.view()  # refused as every call is while the wallet is not open
        return simnet.PendingChannelsResponse()

    async def _closed_channels(self, message: simnet.ClosedChannelsRequest) -> simnet.ClosedChannelsResponse:
        await self._rpcs.view()
        return simnet.ClosedChannelsResponse()

    async def _bake(self, message: simnet.BakeMacaroonRequest) -> simnet.BakeMacaroonResponse:
        await self._rpcs.view()
        known = f"supported actions are [{' '.join(ACTIONS)}], supported entities are [{' '.join(ENTITIES)}]"
        if not message.permissions:
            text = "permission list cannot be empty. specify at least one action/entity pair."
            raise LndError(f"{text} {known}")
        for each in () if message.allow_external_permissions else message.permissions:
            if each.entity not in ENTITIES:
                raise LndError(f"invalid permission entity. {known}")
            if each.entity == URI and each.action not in REQUIRED:
                form = "must be an existing URI in the format /package.Service/MethodName"
                raise LndError(f"invalid permission action, {form}")
            if each.entity != URI and each.action not in ACTIONS:
                raise LndError(f"invalid permission action. {known}")
        granted = frozenset(Permission(each.entity, each.action) for each in message.permissions)
        baked = self._gate.credentials.bake(granted, root_key_id=message.root_key_id)
        return simnet.BakeMacaroonResponse(macaroon=baked.hex())
