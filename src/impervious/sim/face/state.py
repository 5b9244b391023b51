"""lnrpc.State over the RPCs of a simulated node."""

from collections.abc import Mapping

from grpclib.const import Cardinality, Handler

from impervious.pb import lnrpc
from impervious.rpc.server_stream import ServerStream
from impervious.sim.face.answering import answering, request_of
from impervious.sim.rpcs import Rpcs


class State:
    """lnrpc.State: the one service that answers in every state."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/lnrpc.State/GetState": Handler(
                self._get, Cardinality.UNARY_UNARY, lnrpc.GetStateRequest, lnrpc.GetStateResponse
            ),
            "/lnrpc.State/SubscribeState": Handler(
                self._subscribe, Cardinality.UNARY_STREAM, lnrpc.SubscribeStateRequest, lnrpc.SubscribeStateResponse
            ),
        }

    async def _get(self, stream: ServerStream[lnrpc.GetStateRequest, lnrpc.GetStateResponse]) -> None:
        await request_of(stream)
        with answering():
            await stream.send_message(lnrpc.GetStateResponse(state=lnrpc.WalletState(int(self._rpcs.state))))

    async def _subscribe(self, stream: ServerStream[lnrpc.SubscribeStateRequest, lnrpc.SubscribeStateResponse]) -> None:
        await request_of(stream)
        with answering():
            async with self._rpcs.subscribe_state() as states:
                async for state in states:
                    await stream.send_message(lnrpc.SubscribeStateResponse(state=lnrpc.WalletState(int(state))))
