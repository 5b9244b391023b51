import logging

import pytest
from grpclib.const import Status
from tests.lnd.fake import CREDENTIALS, MACAROON, FakeLnd, bake, refuses

from impervious.lnd import rpcs
from impervious.lnd.connection import Connection
from impervious.lnd.permissions import bake_command, missing
from impervious.lnd.readiness import PAYMENT_NODE
from impervious.pb.lnrpc import CheckMacPermRequest

WANTED = (rpcs.GET_INFO, rpcs.SEND_PAYMENT, rpcs.LIST_INVOICES)


async def ask(fake: FakeLnd, data: bytes = MACAROON) -> list[str]:
    async with fake.serve(), fake.connect(CREDENTIALS) as connection:
        assert isinstance(connection, Connection)
        return [rpc.name for rpc in await missing(connection.calls, data, WANTED)]


async def test_lnd_is_asked_about_each_rpc(autojump_clock: object) -> None:
    fake = FakeLnd()
    assert await ask(fake) == []
    asked = {
        (request.full_method, request.permissions[0].entity, request.permissions[0].action)
        for request in fake.requests
        if isinstance(request, CheckMacPermRequest)
    }
    assert asked == {
        ("/lnrpc.Lightning/GetInfo", "info", "read"),
        ("/routerrpc.Router/SendPaymentV2", "offchain", "write"),
        ("/lnrpc.Lightning/ListInvoices", "invoices", "read"),
    }


async def test_what_is_not_allowed_is_named(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.denied = {"SendPaymentV2", "ListInvoices"}
    assert await ask(fake) == ["SendPaymentV2", "ListInvoices"]


@pytest.mark.parametrize(
    "answer",
    [
        refuses("permission denied"),  # it lacks macaroon:read
        refuses("internal server error", Status.INTERNAL),  # lnd with --no-macaroons
        refuses("unknown method", Status.UNIMPLEMENTED),
    ],
)
async def test_a_macaroon_that_may_not_ask_is_read(autojump_clock: object, answer: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.CHECK_MACAROON] = answer  # type: ignore[assignment]
    granted = bake(("info", "read"), ("uri", "/routerrpc.Router/SendPaymentV2"), ("invoices", "write"))
    assert await ask(fake, granted) == ["ListInvoices"]


async def test_a_macaroon_that_nobody_can_read_passes_with_a_warning(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.CHECK_MACAROON] = refuses("permission denied")
    with caplog.at_level(logging.WARNING):
        assert await ask(fake, b"\x02\x02\x01\x07\0") == []
    assert "macaroon:read" in caplog.text


def test_the_command_names_every_method() -> None:
    command = bake_command(PAYMENT_NODE.rpcs)
    assert command.startswith("lncli bakemacaroon --save_to=impervious.macaroon uri:/lnrpc.Lightning/GetInfo uri:/")
    assert command.count(" uri:/") == len(PAYMENT_NODE.rpcs)
