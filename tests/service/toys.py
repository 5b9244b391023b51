"""Services as a third party would write them: what the tests of the framework stand on."""

from collections.abc import Mapping
from dataclasses import dataclass

from grpclib.const import Cardinality, Handler

from impervious.errors import InvalidArgument
from impervious.model import MessageId, NodePubkey, RecordType, ServiceType
from impervious.pb.signing import SignRequest, SignResponse
from impervious.rpc import Servable, ServerStream
from impervious.service import Effect, Fact, Service, ServiceContext, ServiceTx, VerifiedMessage, command


@dataclass(frozen=True)
class Heard:
    times: int
    last_sender: NodePubkey | None
    raw_bytes: bytes = b"\xff"


class EchoService(Service):
    """Counts what it hears, and says things to other nodes."""

    service_type = ServiceType("echo")
    record_type = RecordType(770_000)
    handles_facts = True

    def __init__(self, context: ServiceContext) -> None:
        super().__init__(context)
        self.facts: list[Fact] = []
        self.ran = 0

    async def run(self) -> None:
        self.ran += 1

    async def handle(self, fact: Fact) -> Effect | None:
        self.facts.append(fact)
        if not isinstance(fact, VerifiedMessage):
            return None

        def effect(tx: ServiceTx) -> None:
            tx.emit(b"heard " + fact.data, identifier=fact.id)

        return effect

    @command("say")
    async def say(
        self, pubkey: NodePubkey, text: str, times: int = 1, idempotency_key: str | None = None
    ) -> dict[str, MessageId]:
        if times != 1:
            raise InvalidArgument("times must be 1")
        return {"id": await self.context.send(pubkey, text.encode(), idempotency_key=idempotency_key)}

    @command("heard")
    async def heard(self) -> Heard:
        return Heard(times=len(self.facts), last_sender=None)

    def grpc_services(self) -> list[Servable]:
        return [EchoGrpc()]


class EchoGrpc:
    """As grpclib generates it, for /echo.Echo/Repeat."""

    def __mapping__(self) -> Mapping[str, Handler]:
        return {"/echo.Echo/Repeat": Handler(self._repeat, Cardinality.UNARY_UNARY, SignRequest, SignResponse)}

    async def _repeat(self, stream: ServerStream[SignRequest, SignResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        if not request.msg:
            raise InvalidArgument("there is nothing to repeat")
        await stream.send_message(SignResponse(signature=request.msg))
