"""An LND client made with grpcio and google.protobuf: `python -m tests.sim.face.grpcio_client PORT CERT MACAROON DEST`.

Does what any LND program does and prints what it saw, as one JSON object.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClassesForFiles

KEYSEND = 5482373484


def messages() -> dict[str, Any]:
    """Message classes by full name, from the descriptors that the package ships."""
    pool = DescriptorPool()
    described = FileDescriptorSet.FromString((files("impervious.pb") / "descriptors.bin").read_bytes())
    for file in described.file:
        pool.Add(file)
    classes: dict[str, Any] = GetMessageClassesForFiles([file.name for file in described.file], pool)
    return classes


class Lnd:
    """LND's calls by path."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.types = messages()

    def call(self, path: str, request: Any, response: str) -> Any:
        method = self._channel.unary_unary(path, type(request).SerializeToString, self.types[response].FromString)
        return method(request, timeout=20)

    def stream(self, path: str, request: Any, response: str) -> Iterable[Any]:
        method = self._channel.unary_stream(path, type(request).SerializeToString, self.types[response].FromString)
        return method(request, timeout=20)  # type: ignore[no-any-return]  # grpcio has no types


def connect(port: str, certificate: bytes, macaroon: str | None) -> Lnd:
    credentials = grpc.ssl_channel_credentials(certificate)
    if macaroon is not None:

        def add_macaroon(_: Any, callback: Any) -> None:
            callback([("macaroon", macaroon)], None)

        credentials = grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(add_macaroon))
    return Lnd(grpc.secure_channel(f"localhost:{port}", credentials))


def keysend(lnd: Lnd, dest: str, text: bytes) -> list[Any]:
    preimage = os.urandom(32)
    request = lnd.types["routerrpc.SendPaymentRequest"](
        dest=bytes.fromhex(dest),
        amt=5,
        payment_hash=hashlib.sha256(preimage).digest(),
        timeout_seconds=10,
        fee_limit_sat=10,
        dest_custom_records={KEYSEND: preimage, 400000: text},
    )
    return list(lnd.stream("/routerrpc.Router/SendPaymentV2", request, "lnrpc.Payment"))


def refusal(lnd: Lnd, path: str, request: Any, response: str) -> list[Any]:
    try:
        lnd.call(path, request, response)
    except grpc.RpcError as error:
        return [error.code().value[0], error.details()]
    return []


def main() -> None:
    port, certificate, macaroon, dest, dest_port, dest_certificate, dest_macaroon = sys.argv[1:]
    root, admin = Path(certificate).read_bytes(), Path(macaroon).read_bytes().hex()
    sender = connect(port, root, admin)
    receiver = connect(dest_port, Path(dest_certificate).read_bytes(), Path(dest_macaroon).read_bytes().hex())
    t = sender.types
    info = sender.call("/lnrpc.Lightning/GetInfo", t["lnrpc.GetInfoRequest"](), "lnrpc.GetInfoResponse")
    first = [payment.status for payment in keysend(sender, dest, b"first")]
    events = receiver.stream(
        "/lnrpc.Lightning/SubscribeInvoices",
        t["lnrpc.InvoiceSubscription"](add_index=1, settle_index=1),
        "lnrpc.Invoice",
    )
    keysend(sender, dest, b"second")
    settled = next(event for event in events if event.state == 1)
    page = receiver.call("/lnrpc.Lightning/ListInvoices", t["lnrpc.ListInvoiceRequest"](), "lnrpc.ListInvoiceResponse")
    path, request, response = "/lnrpc.Lightning/GetInfo", t["lnrpc.GetInfoRequest"](), "lnrpc.GetInfoResponse"
    print(
        json.dumps(
            {
                "alias": info.alias,
                "network": info.chains[0].network,
                "keysend": info.features[55].name,
                "first": first,
                "seen": [htlc.custom_records[400000].decode() for htlc in settled.htlcs],
                "listed": [invoice.add_index for invoice in page.invoices],
                "without": refusal(connect(port, root, None), path, request, response),
                "unknown": refusal(sender, "/lnrpc.Lightning/Nothing", request, response)[0],
                "too big": keysend(sender, dest, bytes(2000))[-1].failure_reason,
            }
        )
    )


if __name__ == "__main__":
    main()
