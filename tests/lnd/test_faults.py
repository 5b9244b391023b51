import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.errors import NodeRefused, NodeUnavailable
from impervious.lnd.faults import LndRefused, MacaroonRefused, meaning, translated


def said(words: str, status: Status = Status.UNKNOWN, host: str = "10.0.0.5") -> Exception:
    return meaning(GRPCError(status, words), host)


@pytest.mark.parametrize(
    "words",
    [
        "wallet locked, unlock it to enable full RPC access",
        "wallet not created, create one to enable full RPC access",
        "waiting to start, RPC services not available",
        "the RPC server is in the process of starting up, but not yet ready to accept calls",
        "server is still in the process of starting",
        "unable to determine macaroon permissions",
        "/lnrpc.Lightning/GetInfo: unknown permissions required for method",
        "routerrpc server shutting down",
        "invoice registry shutting down",
        "TxNotifier is exiting",
        "server exiting",
        "database not open",
    ],
)
def test_an_lnd_that_does_not_serve_is_unavailable(words: str) -> None:
    error = said(words)
    assert type(error) is NodeUnavailable
    assert str(error) == f"LND: {words}"


@pytest.mark.parametrize(
    "words",
    [
        "permission denied",
        "verification failed: signature mismatch after caveat verification",
        "verification failed: macaroon not fresh enough",
        "cannot get macaroon: root key with id 0 doesn't exist",
        "expected 1 macaroon, got 0",
        "unmarshal v2: varint value extends past end of buffer",
        "encoding/hex: invalid byte: U+007A 'z'",
        'caveat "time-before 2026-01-01T00:00:00Z" not satisfied: macaroon has expired',
    ],
)
def test_a_macaroon_that_is_refused_says_what_to_do(words: str) -> None:
    error = said(words)
    assert isinstance(error, MacaroonRefused)
    assert words in str(error)
    assert "lightning.lnd_node.admin_macaroon" in str(error)


@pytest.mark.parametrize("status", [Status.UNAUTHENTICATED, Status.PERMISSION_DENIED])
def test_a_proxy_that_wants_credentials_is_told_like_a_macaroon(status: Status) -> None:
    assert isinstance(said("no", status), MacaroonRefused)


@pytest.mark.parametrize("status", [Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.CANCELLED])
def test_transport_errors_mean_that_lnd_is_away(status: Status) -> None:
    error = said("the connection broke: Connection reset by peer", status)
    assert type(error) is NodeUnavailable
    assert str(error) == "LND is away: the connection broke: Connection reset by peer"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.UNKNOWN, "amount must be specified"),
        (Status.NOT_FOUND, "payment isn't initiated"),
        (Status.ALREADY_EXISTS, "invoice is already paid"),
        (Status.INTERNAL, "internal server error"),
        (Status.UNIMPLEMENTED, "unknown method"),
        (Status.RESOURCE_EXHAUSTED, "grpc: received message larger than max"),
    ],
)
def test_everything_else_is_a_refusal(status: Status, words: str) -> None:
    error = said(words, status)
    assert isinstance(error, LndRefused)
    assert isinstance(error, NodeRefused)
    assert (error.status, error.words, str(error)) == (status, words, f"LND: {words}")


def test_an_error_without_words_is_named_by_its_status() -> None:
    assert str(meaning(GRPCError(Status.INTERNAL), "h")) == "LND: INTERNAL"


@pytest.mark.parametrize(
    ("words", "no_route"),
    [
        ("unable to find a path to destination", True),
        ("insufficient local balance", True),
        ("destination hop doesn't understand new TLV payloads", True),
        ("amount must be specified", False),
    ],
)
def test_no_route_is_told_apart(words: str, no_route: bool) -> None:
    error = said(words)
    assert isinstance(error, LndRefused)
    assert error.no_route is no_route


VERIFY = "cannot connect to {}:10009: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)"


@pytest.mark.parametrize(
    ("host", "words", "cure"),
    [
        (
            "10.0.0.5",
            VERIFY.format("10.0.0.5", "IP address mismatch, certificate is not valid for '10.0.0.5'."),
            "--tlsextraip=10.0.0.5",
        ),
        ("::1", VERIFY.format("::1", "IP address mismatch, certificate is not valid for '::1'."), "--tlsextraip=::1"),
        (
            "lnd.example",
            VERIFY.format("lnd.example", "Hostname mismatch, certificate is not valid for 'lnd.example'."),
            "--tlsextradomain=lnd.example",
        ),
        ("h", VERIFY.format("h", "self-signed certificate"), "set lightning.lnd_node.tls_cert to LND's present"),
        ("h", VERIFY.format("h", "unable to get local issuer certificate"), "set lightning.lnd_node.tls_cert"),
        ("h", VERIFY.format("h", "certificate has expired"), "restart LND"),
        ("h", "cannot connect to h:10009: [SSL: WRONG_VERSION_NUMBER] wrong version number", "usually 10009"),
        ("h", "cannot connect to h:10009: Connection refused", "start LND"),
        ("h", "cannot connect to h:10009: Name or service not known", "correct lightning.lnd_node.ip"),
    ],
)
def test_what_keeps_a_connection_from_being_made_is_told_with_its_cure(host: str, words: str, cure: str) -> None:
    error = said(words, Status.UNAVAILABLE, host)
    assert type(error) is NodeUnavailable
    assert words in str(error)
    assert cure in str(error)


def test_only_grpc_errors_are_translated() -> None:
    with pytest.raises(KeyError), translated("h"):
        raise KeyError("a bug")
    with pytest.raises(LndRefused) as caught, translated("h"):
        raise GRPCError(Status.UNKNOWN, "no")
    assert isinstance(caught.value.__cause__, GRPCError)
