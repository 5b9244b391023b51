"""One table of calls, asked of any LND through grpcio, and what came: which fields are set, or the words of a refusal.

Fields that our reduced protocol files do not name count too, by their numbers.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import trio
from google.protobuf.unknown_fields import UnknownFieldSet
from tests.sim.face.grpcio_client import KEYSEND, Lnd, connect
from tests.sim.face.serving import on_network

from impervious.sim import SimNetwork

BOLD: Final = 400_000


@dataclass
class Asked:
    """alice, bob and carol in a line, and what the table remembers from call to call."""

    lnds: Mapping[str, Lnd]
    pubkeys: Mapping[str, str]
    height: int = 0
    answers: dict[str, Any] = field(default_factory=dict)
    got: dict[str, "Got"] = field(default_factory=dict)

    def type(self, name: str) -> Any:
        return self.lnds["alice"].types[name]

    def ask(self, name: str, node: str, path: str, request: Any, response: str) -> Any:
        """Make a call and keep what came under a name."""
        return self.keep(name, lambda: self.lnds[node].call(path, request, response))

    def last(self, name: str, node: str, path: str, request: Any, response: str) -> Any:
        """Make a call that streams, and keep the last message."""
        return self.keep(name, lambda: list(self.lnds[node].stream(path, request, response))[-1])

    def keep(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            answer = call()
        except grpc.RpcError as error:
            # What a damaged checksum should be depends on the invoice.
            text = re.sub(r"Expected \w{6}, got \w{6}", "Expected x, got y", error.details())
            self.got[name] = Got(refusal=(error.code().name, text))
            return None
        self.got[name] = Got(fields=frozenset(fields(answer)))
        return answer


@dataclass(frozen=True)
class Got:
    """What came of one call."""

    fields: frozenset[str] = frozenset()
    """Paths of the fields that are set, such as `routes[].hops[].fee`."""
    refusal: tuple[str, str] | None = None
    """Status and text."""


def fields(message: Any, prefix: str = "") -> Iterator[str]:
    """Name every field that is set in a message and in those within it; unknown ones by number."""
    for descriptor, value in message.ListFields():
        name = prefix + descriptor.name
        if descriptor.message_type is None:
            yield name + ("[]" if descriptor.is_repeated else "")
        elif descriptor.message_type.GetOptions().map_entry:
            yield name + "{}"
            for item in value.values():
                if hasattr(item, "ListFields"):
                    yield from fields(item, f"{name}{{}}.")
        elif descriptor.is_repeated:
            yield name + "[]"
            for item in value:
                yield from fields(item, f"{name}[].")
        else:
            yield name
            yield from fields(value, name + ".")
    unknown = UnknownFieldSet(message)
    for position in range(len(unknown)):
        yield f"{prefix}#{unknown[position].field_number}"


def cases(table: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The rows of a table."""
    return table.items()


def ask_everything(asked: Asked) -> dict[str, Got]:
    """Go through the table."""
    for part in (_warm_up, _looks, _invoices, _holds, _payments, _routes, _lists, _signatures, _refusals, _macaroons):
        part(asked)
    return asked.got


LIGHTNING, ROUTER, INVOICES = "/lnrpc.Lightning/", "/routerrpc.Router/", "/invoicesrpc.Invoices/"


def _warm_up(a: Asked) -> None:
    """Payments both ways, so that no counter is zero for want of a past."""
    for sender, receiver in (("alice", "carol"), ("alice", "carol"), ("carol", "alice"), ("carol", "alice")):
        request = keysend(a, dest=bytes.fromhex(a.pubkeys[receiver]))
        list(a.lnds[sender].stream(ROUTER + "SendPaymentV2", request, "lnrpc.Payment"))
    settled(a)


def settled(a: Asked) -> None:
    """Wait until no channel holds an HTLC any more: a payment succeeds before its last channel has heard."""
    deadline = time.monotonic() + 20
    request = a.type("lnrpc.ListChannelsRequest")()
    for lnd in a.lnds.values():
        while any(c.unsettled_balance for c in lnd.call(LIGHTNING + "ListChannels", request, CHANNELS).channels):
            assert time.monotonic() < deadline, "an HTLC does not go"
            time.sleep(0.05)


def _looks(a: Asked) -> None:
    t = a.type
    info = a.ask("GetInfo", "bob", LIGHTNING + "GetInfo", t("lnrpc.GetInfoRequest")(), "lnrpc.GetInfoResponse")
    a.height = info.block_height
    a.answers["network"] = [(chain.chain, chain.network) for chain in info.chains]
    a.ask("GetVersion", "bob", "/verrpc.Versioner/GetVersion", t("simnet.VersionRequest")(), "simnet.Version")
    a.ask("GetState", "bob", "/lnrpc.State/GetState", t("lnrpc.GetStateRequest")(), "lnrpc.GetStateResponse")
    peers = t("simnet.ListPeersRequest")()
    a.ask("ListPeers", "bob", LIGHTNING + "ListPeers", peers, "simnet.ListPeersResponse")
    a.ask("DescribeGraph", "bob", LIGHTNING + "DescribeGraph", t("simnet.ChannelGraphRequest")(), "simnet.ChannelGraph")
    numbers = t("simnet.NetworkInfoRequest")()
    a.ask("GetNetworkInfo", "bob", LIGHTNING + "GetNetworkInfo", numbers, "simnet.NetworkInfo")
    fees = t("simnet.FeeReportRequest")()
    a.ask("FeeReport", "alice", LIGHTNING + "FeeReport", fees, "simnet.FeeReportResponse")
    pending = t("simnet.PendingChannelsRequest")()
    a.ask("PendingChannels", "bob", LIGHTNING + "PendingChannels", pending, "simnet.PendingChannelsResponse")
    for kind in (0, 1, 4):
        address = t("simnet.NewAddressRequest")(type=kind)
        a.ask(f"NewAddress {kind}", "bob", LIGHTNING + "NewAddress", address, "simnet.NewAddressResponse")
    for with_channels in (False, True):
        node = t("lnrpc.NodeInfoRequest")(pub_key=a.pubkeys["carol"], include_channels=with_channels)
        name = f"GetNodeInfo{' with channels' if with_channels else ''}"
        a.ask(name, "alice", LIGHTNING + "GetNodeInfo", node, "lnrpc.NodeInfo")
    listing = t("lnrpc.ListChannelsRequest")(peer_alias_lookup=True)
    channels = a.ask("ListChannels", "alice", LIGHTNING + "ListChannels", listing, "lnrpc.ListChannelsResponse")
    edge = t("simnet.ChanInfoRequest")(chan_id=channels.channels[0].chan_id)
    a.ask("GetChanInfo", "alice", LIGHTNING + "GetChanInfo", edge, "lnrpc.ChannelEdge")
    edge = t("simnet.ChanInfoRequest")(chan_point=channels.channels[0].channel_point)
    a.ask("GetChanInfo by point", "alice", LIGHTNING + "GetChanInfo", edge, "lnrpc.ChannelEdge")
    balance = t("lnrpc.ChannelBalanceRequest")()
    a.ask("ChannelBalance", "bob", LIGHTNING + "ChannelBalance", balance, "lnrpc.ChannelBalanceResponse")
    a.ask(
        "WalletBalance",
        "bob",
        LIGHTNING + "WalletBalance",
        t("lnrpc.WalletBalanceRequest")(),
        "lnrpc.WalletBalanceResponse",
    )


def _invoices(a: Asked) -> None:
    t, path = a.type, LIGHTNING + "AddInvoice"
    plain = t("lnrpc.Invoice")(value=10, memo="coffee")
    added = a.ask("AddInvoice", "carol", path, plain, "lnrpc.AddInvoiceResponse")
    a.answers["invoice"] = added
    made = t("lnrpc.Invoice")(value_msat=11_500, private=True, cltv_expiry=40, description_hash=bytes(32))
    a.ask("AddInvoice with everything", "carol", path, made, "lnrpc.AddInvoiceResponse")
    for name, invoice in cases(
        {
            "negative": {"value": -1},
            "negative msat": {"value_msat": -1},
            "both": {"value": 1, "value_msat": 1000},
            "expiry": {"expiry": 1_000_000_000},
            "expiry by one": {"expiry": 31_536_001},
            "memo": {"memo": "x" * 1025},
            "long memo": {"memo": "x" * 700},
            "hash": {"description_hash": b"x"},
            "much": {"value": 10_000_000_000_001},
            "more": {"value_msat": 10**16 + 123_456_789},
            "fallback": {"fallback_addr": "nonsense"},
            "cltv": {"cltv_expiry": 5},
            "long cltv": {"cltv_expiry": 5000},
            "preimage": {"r_preimage": b"x"},
            "hints": {"route_hints": [t("lnrpc.RouteHint")()] * 21},
            "empty hint": {"route_hints": [t("lnrpc.RouteHint")()]},
        }
    ):
        a.ask(f"AddInvoice {name}", "carol", path, t("lnrpc.Invoice")(**invoice), "lnrpc.AddInvoiceResponse")
    for name, text in cases(
        {
            "": added.payment_request,
            "garbage": "garbage",
            "nothing": "",
            "of mainnet": MAINNET,
            "damaged": added.payment_request[:-1] + ("q" if added.payment_request[-1] != "q" else "p"),
            "mixed": added.payment_request[:-1] + "Q",
            "cut off": added.payment_request[:40],
            "without a 1": "lnbcrt",
            "odd": "lnbcrt1!",
        }
    ):
        request = t("lnrpc.PayReqString")(pay_req=text)
        a.ask(f"DecodePayReq {name}".strip(), "alice", LIGHTNING + "DecodePayReq", request, "lnrpc.PayReq")
    look = LIGHTNING + "LookupInvoice"
    a.ask("LookupInvoice open", "carol", look, t("lnrpc.PaymentHash")(r_hash=added.r_hash), "lnrpc.Invoice")
    text = t("lnrpc.PaymentHash")(r_hash_str=added.r_hash.hex())
    a.ask("LookupInvoice by text", "carol", look, text, "lnrpc.Invoice")
    for name, request in cases(
        {
            "unknown": {"r_hash": b"x" * 32},
            "short": {"r_hash": b"x"},
            "nothing": {},
            "no hex": {"r_hash_str": "xy"},
            "odd hex": {"r_hash_str": "abc"},
        }
    ):
        a.ask(f"LookupInvoice {name}", "carol", look, t("lnrpc.PaymentHash")(**request), "lnrpc.Invoice")


def _holds(a: Asked) -> None:
    t, preimage = a.type, os.urandom(32)
    hashed = hashlib.sha256(preimage).digest()
    hold = t("simnet.AddHoldInvoiceRequest")(hash=hashed, value=20)
    made = a.ask("AddHoldInvoice", "carol", INVOICES + "AddHoldInvoice", hold, "simnet.AddHoldInvoiceResp")
    a.ask("AddHoldInvoice again", "carol", INVOICES + "AddHoldInvoice", hold, "simnet.AddHoldInvoiceResp")
    short = t("simnet.AddHoldInvoiceRequest")(hash=b"x", value=20)
    a.ask("AddHoldInvoice short", "carol", INVOICES + "AddHoldInvoice", short, "simnet.AddHoldInvoiceResp")
    settle = t("simnet.SettleInvoiceMsg")(preimage=preimage)
    a.ask("SettleInvoice open", "carol", INVOICES + "SettleInvoice", settle, "simnet.SettleInvoiceResp")
    pay = t("routerrpc.SendPaymentRequest")(
        payment_request=made.payment_request, timeout_seconds=20, fee_limit_sat=10, no_inflight_updates=True
    )
    paid = a.lnds["alice"].stream(ROUTER + "SendPaymentV2", pay, "lnrpc.Payment")
    follow = t("invoicesrpc.SubscribeSingleInvoiceRequest")(r_hash=hashed)
    events = iter(a.lnds["carol"].stream(INVOICES + "SubscribeSingleInvoice", follow, "lnrpc.Invoice"))
    while next(events).state != ACCEPTED:
        pass
    look = t("simnet.LookupInvoiceMsg")(payment_hash=hashed)
    a.ask("LookupInvoiceV2 accepted", "carol", INVOICES + "LookupInvoiceV2", look, "lnrpc.Invoice")
    track = t("routerrpc.TrackPaymentRequest")(payment_hash=hashed)
    updates = iter(a.lnds["alice"].stream(ROUTER + "TrackPaymentV2", track, "lnrpc.Payment"))
    a.keep("TrackPaymentV2 in flight", lambda: next(updates))
    a.ask("SettleInvoice", "carol", INVOICES + "SettleInvoice", settle, "simnet.SettleInvoiceResp")
    a.keep("SendPaymentV2 of a hold invoice", lambda: list(paid)[-1])
    a.ask("SettleInvoice again", "carol", INVOICES + "SettleInvoice", settle, "simnet.SettleInvoiceResp")
    cancel = t("simnet.CancelInvoiceMsg")(payment_hash=hashed)
    a.ask("CancelInvoice settled", "carol", INVOICES + "CancelInvoice", cancel, "simnet.CancelInvoiceResp")
    a.ask("LookupInvoiceV2", "carol", INVOICES + "LookupInvoiceV2", look, "lnrpc.Invoice")
    for name, request in cases(
        {
            "by address": {"payment_addr": made.payment_addr},
            "unknown": {"payment_hash": b"x" * 32},
            "short": {"payment_hash": b"x"},
            "of nothing": {},
        }
    ):
        message = t("simnet.LookupInvoiceMsg")(**request)
        a.ask(f"LookupInvoiceV2 {name}", "carol", INVOICES + "LookupInvoiceV2", message, "lnrpc.Invoice")
    for name, hashed in {"unknown": b"x" * 32, "short": b"x"}.items():
        message = t("simnet.CancelInvoiceMsg")(payment_hash=hashed)
        a.ask(f"CancelInvoice {name}", "carol", INVOICES + "CancelInvoice", message, "simnet.CancelInvoiceResp")
        message = t("simnet.SettleInvoiceMsg")(preimage=hashed)
        a.ask(f"SettleInvoice {name}", "carol", INVOICES + "SettleInvoice", message, "simnet.SettleInvoiceResp")
    hold = t("simnet.AddHoldInvoiceRequest")(hash=os.urandom(32), value=20)
    a.ask("AddHoldInvoice to cancel", "carol", INVOICES + "AddHoldInvoice", hold, "simnet.AddHoldInvoiceResp")
    cancel = t("simnet.CancelInvoiceMsg")(payment_hash=hold.hash)
    for name in ("CancelInvoice", "CancelInvoice again"):
        a.ask(name, "carol", INVOICES + "CancelInvoice", cancel, "simnet.CancelInvoiceResp")
    look = t("simnet.LookupInvoiceMsg")(payment_hash=hold.hash)
    a.ask("LookupInvoiceV2 canceled", "carol", INVOICES + "LookupInvoiceV2", look, "lnrpc.Invoice")


def keysend(a: Asked, **change: Any) -> Any:
    preimage = os.urandom(32)
    request = {
        "dest": bytes.fromhex(a.pubkeys["carol"]),
        "amt": 5,
        "payment_hash": hashlib.sha256(preimage).digest(),
        "timeout_seconds": 10,
        "fee_limit_sat": 10,
        "dest_custom_records": {KEYSEND: preimage, BOLD: b"hello"},
        **change,
    }
    return a.type("routerrpc.SendPaymentRequest")(**request)


def _payments(a: Asked) -> None:
    t, path = a.type, ROUTER + "SendPaymentV2"
    pay = t("routerrpc.SendPaymentRequest")(
        payment_request=a.answers["invoice"].payment_request, timeout_seconds=10, fee_limit_sat=10
    )
    a.last("SendPaymentV2 invoice", "alice", path, pay, "lnrpc.Payment")
    a.last("SendPaymentV2 invoice again", "alice", path, pay, "lnrpc.Payment")
    sent = keysend(a)
    a.answers["keysend"] = sent.payment_hash
    a.last("SendPaymentV2 keysend", "alice", path, sent, "lnrpc.Payment")
    track = t("routerrpc.TrackPaymentRequest")(payment_hash=sent.payment_hash)
    a.last("TrackPaymentV2", "alice", ROUTER + "TrackPaymentV2", track, "lnrpc.Payment")
    look = t("lnrpc.PaymentHash")(r_hash=sent.payment_hash)
    a.ask("LookupInvoice keysend", "carol", LIGHTNING + "LookupInvoice", look, "lnrpc.Invoice")
    look = t("lnrpc.PaymentHash")(r_hash=a.answers["invoice"].r_hash)
    a.ask("LookupInvoice settled", "carol", LIGHTNING + "LookupInvoice", look, "lnrpc.Invoice")
    for name, change in cases(
        {
            "fee_limit 0": {"fee_limit_sat": 0},
            "too large": {"dest_custom_records": {BOLD: bytes(1400)}},
            "to a wrong hash": {"payment_hash": os.urandom(32)},
            "to oneself": {"dest": bytes.fromhex(a.pubkeys["alice"])},
            "nowhere": {"dest": b"\x02" + bytes(31) + b"\x01"},
            "to no key": {"dest": b"x"},
            "of nothing": {"amt": 0},
            "negative": {"amt": -5},
            "of both": {"amt_msat": 5000},
            "low record": {"dest_custom_records": {1000: b"x"}},
            "negative timeout": {"timeout_seconds": -1},
            "both fee limits": {"fee_limit_msat": 1000},
            "negative fee limit": {"fee_limit_sat": -1},
            "short hash": {"payment_hash": b"x"},
            "max shard": {"max_shard_size_msat": 1000},
            "first hop record": {"first_hop_custom_records": {10: b"x"}},
            "more than all": {"amt": 4_900_000},
            "hint of no key": {"route_hints": [t("lnrpc.RouteHint")(hop_hints=[t("lnrpc.HopHint")(node_id="zz")])]},
        }
    ):
        a.last(f"SendPaymentV2 {name}", "alice", path, keysend(a, **change), "lnrpc.Payment")
    _keysends_to_an_invoice(a)
    for name, change in cases(
        {
            "and a destination": {"dest": bytes.fromhex(a.pubkeys["carol"])},
            "and an amount": {"amt": 5},
            "garbage": {"payment_request": "garbage"},
        }
    ):
        invoice = a.ask("AddInvoice to pay", "carol", LIGHTNING + "AddInvoice", t("lnrpc.Invoice")(value=9), ADDED)
        request = {"payment_request": invoice.payment_request, "timeout_seconds": 5, **change}
        a.last(
            f"SendPaymentV2 invoice {name}",
            "alice",
            path,
            t("routerrpc.SendPaymentRequest")(**request),
            "lnrpc.Payment",
        )
    track = t("routerrpc.TrackPaymentRequest")(payment_hash=b"x" * 32)
    a.last("TrackPaymentV2 unknown", "alice", ROUTER + "TrackPaymentV2", track, "lnrpc.Payment")
    track = t("routerrpc.TrackPaymentRequest")(payment_hash=b"x")
    a.last("TrackPaymentV2 short", "alice", ROUTER + "TrackPaymentV2", track, "lnrpc.Payment")


def _keysends_to_an_invoice(a: Asked) -> None:
    """An ordinary invoice takes a keysend only if its record is the preimage (lnd#11024)."""
    for name, right in (("of its preimage", True), ("of another", False)):
        preimage = os.urandom(32)
        invoice = a.type("lnrpc.Invoice")(value=5, r_preimage=preimage)
        a.ask(f"AddInvoice {name}", "carol", LIGHTNING + "AddInvoice", invoice, ADDED)
        sent = keysend(
            a,
            payment_hash=hashlib.sha256(preimage).digest(),
            dest_custom_records={KEYSEND: preimage if right else os.urandom(32)},
        )
        paid = a.last(f"keysend {name} to an invoice", "alice", ROUTER + "SendPaymentV2", sent, "lnrpc.Payment")
        a.answers[f"keysend {name}"] = paid.status


def _routes(a: Asked) -> None:
    t, path = a.type, LIGHTNING + "QueryRoutes"
    preimage = os.urandom(32)
    good = {"pub_key": a.pubkeys["carol"], "amt": 10, "dest_custom_records": {KEYSEND: preimage}}
    found = a.ask("QueryRoutes", "alice", path, t("lnrpc.QueryRoutesRequest")(**good), "lnrpc.QueryRoutesResponse")
    for name, change in cases(
        {
            "too dear": {"amt": 4_900_000},
            "free": {"fee_limit": t("lnrpc.FeeLimit")(fixed=0)},
            "of no key": {"pub_key": "xx"},
            "of a short key": {"pub_key": "abcd"},
            "nowhere": {"pub_key": "02" + "00" * 31 + "01"},
            "negative": {"amt": -1},
            "ignoring bob": {"ignored_nodes": [bytes.fromhex(a.pubkeys["bob"])]},
        }
    ):
        request = t("lnrpc.QueryRoutesRequest")(**{**good, **change})
        a.ask(f"QueryRoutes {name}", "alice", path, request, "lnrpc.QueryRoutesResponse")
    hashed = hashlib.sha256(preimage).digest()
    send = t("routerrpc.SendToRouteRequest")(payment_hash=hashed, route=found.routes[0])
    a.ask("SendToRouteV2", "alice", ROUTER + "SendToRouteV2", send, "lnrpc.HTLCAttempt")
    a.ask("SendToRouteV2 again", "alice", ROUTER + "SendToRouteV2", send, "lnrpc.HTLCAttempt")
    send = t("routerrpc.SendToRouteRequest")(payment_hash=os.urandom(32), route=found.routes[0])
    a.ask("SendToRouteV2 of a wrong hash", "alice", ROUTER + "SendToRouteV2", send, "lnrpc.HTLCAttempt")
    cheap = t("lnrpc.Route")()
    cheap.CopyFrom(found.routes[0])
    cheap.total_amt_msat -= 1000
    send = t("routerrpc.SendToRouteRequest")(payment_hash=hashed[::-1], route=cheap)
    a.ask("SendToRouteV2 for nothing", "alice", ROUTER + "SendToRouteV2", send, "lnrpc.HTLCAttempt")
    for name, change in cases(
        {
            "without a route": {"payment_hash": hashed},
            "without hops": {"payment_hash": hashed, "route": t("lnrpc.Route")()},
            "skipping": {"payment_hash": hashed, "route": cheap, "skip_temp_err": True},
            "short hash": {"payment_hash": b"x", "route": cheap},
        }
    ):
        send = t("routerrpc.SendToRouteRequest")(**change)
        a.ask(f"SendToRouteV2 {name}", "alice", ROUTER + "SendToRouteV2", send, "lnrpc.HTLCAttempt")
    request = t("simnet.QueryMissionControlRequest")()
    answer = "simnet.QueryMissionControlResponse"
    a.ask("QueryMissionControl", "alice", ROUTER + "QueryMissionControl", request, answer)
    reset = t("routerrpc.ResetMissionControlRequest")()
    a.ask(
        "ResetMissionControl", "alice", ROUTER + "ResetMissionControl", reset, "routerrpc.ResetMissionControlResponse"
    )
    a.ask("QueryMissionControl after it", "alice", ROUTER + "QueryMissionControl", request, answer)
    for name, change in cases(
        {
            "": {"dest": bytes.fromhex(a.pubkeys["carol"]), "amt_sat": 10},
            "of nothing": {},
            "of no key": {"dest": b"x", "amt_sat": 10},
            "of no amount": {"dest": bytes.fromhex(a.pubkeys["carol"])},
        }
    ):
        request = t("simnet.RouteFeeRequest")(**change)
        a.ask(
            f"EstimateRouteFee {name}".strip(), "alice", ROUTER + "EstimateRouteFee", request, "simnet.RouteFeeResponse"
        )


def _lists(a: Asked) -> None:
    t = a.type
    settled(a)
    invoices = t("lnrpc.ListInvoiceRequest")(num_max_invoices=3, reversed=True)
    a.ask("ListInvoices", "carol", LIGHTNING + "ListInvoices", invoices, "lnrpc.ListInvoiceResponse")
    payments = t("lnrpc.ListPaymentsRequest")(max_payments=1, reversed=True, count_total_payments=True)
    a.ask("ListPayments", "alice", LIGHTNING + "ListPayments", payments, "lnrpc.ListPaymentsResponse")
    forwards = t("simnet.ForwardingHistoryRequest")(num_max_events=2, peer_alias_lookup=True)
    answer = "simnet.ForwardingHistoryResponse"
    a.ask("ForwardingHistory", "bob", LIGHTNING + "ForwardingHistory", forwards, answer)
    fees = t("simnet.FeeReportRequest")()
    a.ask("FeeReport of a router", "bob", LIGHTNING + "FeeReport", fees, "simnet.FeeReportResponse")
    a.ask("ListChannels used", "bob", LIGHTNING + "ListChannels", t("lnrpc.ListChannelsRequest")(), CHANNELS)


def _signatures(a: Asked) -> None:
    t = a.type
    for once in (False, True):
        sign = t("lnrpc.SignMessageRequest")(msg=b"hello", single_hash=once)
        name = f"SignMessage{' once' if once else ''}"
        signed = a.ask(name, "carol", LIGHTNING + "SignMessage", sign, "lnrpc.SignMessageResponse")
        verify = t("lnrpc.VerifyMessageRequest")(msg=b"hello", signature=signed.signature)
        verified = a.ask(f"VerifyMessage {name}", "alice", LIGHTNING + "VerifyMessage", verify, VERIFIED)
        a.answers[f"valid {name}"] = verified.valid
    for name, signature in cases(
        {
            "garbage": "garbage",
            "nothing": "",
            "illegal": "!!!",
            "letters": "yyyl",
            "cut": signed.signature[:60],
        }
    ):
        verify = t("lnrpc.VerifyMessageRequest")(msg=b"hello", signature=signature)
        a.ask(f"VerifyMessage {name}", "alice", LIGHTNING + "VerifyMessage", verify, VERIFIED)
    a.ask(
        "SignMessage nothing",
        "carol",
        LIGHTNING + "SignMessage",
        t("lnrpc.SignMessageRequest")(),
        "lnrpc.SignMessageResponse",
    )


def _refusals(a: Asked) -> None:
    t = a.type
    for name, text in {"garbage": "xx", "no hex": "zz" * 33, "unknown": "02" + "00" * 31 + "01"}.items():
        node = t("lnrpc.NodeInfoRequest")(pub_key=text)
        a.ask(f"GetNodeInfo {name}", "alice", LIGHTNING + "GetNodeInfo", node, "lnrpc.NodeInfo")
    for name, change in cases({"unknown": {"chan_id": 9}, "nothing": {}}):
        edge = t("simnet.ChanInfoRequest")(**change)
        a.ask(f"GetChanInfo {name}", "alice", LIGHTNING + "GetChanInfo", edge, "lnrpc.ChannelEdge")
    for name, change in cases({"account": {"account": "x"}, "type": {"type": 9}}):
        address = t("simnet.NewAddressRequest")(**change)
        a.ask(f"NewAddress {name}", "alice", LIGHTNING + "NewAddress", address, "simnet.NewAddressResponse")
    listing = t("lnrpc.ListChannelsRequest")(peer=b"x")
    a.ask("ListChannels of no peer", "alice", LIGHTNING + "ListChannels", listing, CHANNELS)


def _macaroons(a: Asked) -> None:
    t = a.type
    read = t("lnrpc.MacaroonPermission")(entity="info", action="read")
    for name, change in cases(
        {
            "": {"permissions": [read]},
            "of another key": {"permissions": [read], "root_key_id": 7},
            "of nothing": {},
            "of the moon": {"permissions": [t("lnrpc.MacaroonPermission")(entity="moon", action="read")]},
            "to fly": {"permissions": [t("lnrpc.MacaroonPermission")(entity="info", action="fly")]},
            "of a call": {
                "permissions": [t("lnrpc.MacaroonPermission")(entity="uri", action="/lnrpc.Lightning/GetInfo")]
            },
            "of no call": {"permissions": [t("lnrpc.MacaroonPermission")(entity="uri", action="/x")]},
        }
    ):
        bake = t("simnet.BakeMacaroonRequest")(**change)
        name = f"BakeMacaroon {name}".strip()
        baked = a.ask(name, "alice", LIGHTNING + "BakeMacaroon", bake, "simnet.BakeMacaroonResponse")
        if baked is None:
            continue
        for call, change in cases(
            {
                "what it may": {"permissions": [read]},
                "what it may not": {"permissions": [t("lnrpc.MacaroonPermission")(entity="offchain", action="write")]},
                "a call": {"fullMethod": "/lnrpc.Lightning/GetInfo", "check_default_perms_from_full_method": True},
                "no call": {"fullMethod": "/x", "check_default_perms_from_full_method": True},
                "nothing": {"check_default_perms_from_full_method": True},
            }
        ):
            check = t("lnrpc.CheckMacPermRequest")(macaroon=bytes.fromhex(baked.macaroon), **change)
            path = LIGHTNING + "CheckMacaroonPermissions"
            a.ask(f"{name}: check {call}", "alice", path, check, "lnrpc.CheckMacPermResponse")


ACCEPTED: Final = 3
ADDED: Final = "lnrpc.AddInvoiceResponse"
CHANNELS: Final = "lnrpc.ListChannelsResponse"
VERIFIED: Final = "lnrpc.VerifyMessageResponse"
MAINNET: Final = (
    "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyq"
    "cyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06f"
    "v3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh"
)
"""BOLT 11, examples: "1 cup coffee"."""

NAMES: Final = ("alice", "bob", "carol")
RECORDED: Final = Path(__file__).with_name("answers_of_lnd.json")
"""What came of the table on real lnd nodes; tests/lnd/test_simulated.py holds it to them."""

ONLY_REAL: Final = {
    # The simulated network has no coins on its chain.
    "WalletBalance": {"account_balance{}.confirmed_balance", "confirmed_balance", "total_balance"},
    # A channel_update in a failure: nothing reads it, and simulated policies are never out of date.
    "SendToRouteV2 for nothing": {"failure.#3"},
}
ONLY_SIMULATED: Final = {
    # It says that it is simulated; the binary under test was built without a tag.
    "GetVersion": {"commit"},
    # lnd has it after the first ping, a minute after it connected.
    "ListPeers": {"peers[].last_ping_payload"},
}


async def ask_simulated(folder: Path) -> Asked:
    network = SimNetwork(NAMES, ["alice-bob:5000000:3400000", "bob-carol:5000000:3400000"], latency_s=(0, 0))
    async with on_network(network, folder, *NAMES) as world:
        lnds = {
            name: connect(
                str(world.ports[name]),
                world.credentials[name].certificate.read_bytes(),
                world.credentials[name].macaroon.read_bytes().hex(),
            )
            for name in NAMES
        }
        asked = Asked(lnds, {name: world.lnd(name).pubkey.hex for name in NAMES})
        with trio.fail_after(120):
            await trio.to_thread.run_sync(ask_everything, asked)
    return asked


def differences(real: Mapping[str, Got], simulated: Mapping[str, Got]) -> list[str]:
    """What a program could notice, besides what is excepted above."""
    found = []
    for name, one in real.items():
        other = simulated[name]
        if one.refusal != other.refusal:
            found.append(f"{name}: lnd says {one.refusal or 'yes'}, the simulated one {other.refusal or 'yes'}")
        if missing := one.fields - other.fields - ONLY_REAL.get(name, set()):
            found.append(f"{name}: only lnd fills {sorted(missing)}")
        if invented := other.fields - one.fields - ONLY_SIMULATED.get(name, set()):
            found.append(f"{name}: only the simulated one fills {sorted(invented)}")
    return found


def record(got: Mapping[str, Got], path: Path) -> None:
    """Write down what came of the table."""
    rows = {name: {"fields": sorted(each.fields), "refusal": each.refusal} for name, each in got.items()}
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", "utf-8")


def recorded() -> dict[str, Got]:
    """What came of the table on real lnd nodes."""
    rows = json.loads(RECORDED.read_text("utf-8"))
    return {
        name: Got(fields=frozenset(row["fields"]), refusal=tuple(row["refusal"]) if row["refusal"] else None)
        for name, row in rows.items()
    }
