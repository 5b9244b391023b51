import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.services.vpn.shop import private_key

from impervious.errors import Malformed
from impervious.services.vpn.payloads import (
    Contract,
    ContractRequest,
    Expired,
    MalformedRequest,
    Payload,
    Quote,
    QuoteRequest,
    Refresh,
    RefreshRequest,
    Refused,
    fitting,
    read,
    write,
)

ALL: tuple[Payload, ...] = (
    QuoteRequest(hours=3),
    Quote(nonce="n", price=1, hours=1, expires_at=2, endpoint="h:1", server_pub_key="k", allowed_ips="::/0", dns=""),
    ContractRequest(nonce="n", public_key="k", psk_wanted=True),
    Contract(nonce="n", address="10.0.0.2", expires_at=2, endpoint="h:1", server_pub_key="k", allowed_ips="::/0"),
    RefreshRequest(nonce="n"),
    Refresh(nonce="n", expires_at=3),
    Refused(reason="no"),
    Expired(nonce="n", reason="moving house"),
)


@pytest.mark.parametrize("payload", ALL, ids=lambda payload: type(payload).__name__)
def test_what_is_written_is_read(payload: Payload) -> None:
    assert read(write(payload)) == payload
    more = json.loads(write(payload)) | {"later": [1]}
    assert read(json.dumps(more).encode()) == payload


def test_as_published() -> None:
    assert write(RefreshRequest(nonce="n")) == b'{"recordId":"REFRESH_REQUEST","nonce":"n"}'
    assert read(b'{"recordId":"QUOTE_REQUEST"}') == QuoteRequest(hours=1)


def test_a_request_with_money_is_never_cut() -> None:
    request = ContractRequest(nonce="n" * 64, public_key=private_key(1).public.text, psk_wanted=True)
    assert len(write(request)) <= 200
    assert len(write(replace(request, psk_wanted=False))) <= 200
    assert len(write(RefreshRequest(nonce="n" * 64))) <= 200


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b'{"recordId":["QUOTE"]}', "recordId is none of a tunnel's"),
        (b'{"recordId":"REFRESH","nonce":"n"}', "REFRESH: a key is missing"),
        (
            b'{"recordId":"REFUSED","reason":"a\\nPostUp = x"}',
            "REFUSED: reason is not one line of at most",
        ),
        (b'{"recordId":"REFRESH","nonce":"n","expires_at":-1}', "REFRESH: expires_at is not between 0 and"),
        (b'{"recordId":"REFRESH","nonce":"n","expires_at":1.0}', "REFRESH: expires_at is not of its type"),
        (b'{"recordId":"REFRESH","nonce":"n","expires_at":true}', "REFRESH: expires_at is not of its type"),
    ],
)
def test_what_cannot_be_read(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(data)
    assert str(caught.value).startswith(reason)
    assert not isinstance(caught.value, MalformedRequest)


def test_a_malformed_request_can_be_answered() -> None:
    with pytest.raises(MalformedRequest, match="hours is not of its type"):
        read(b'{"recordId":"QUOTE_REQUEST","hours":"1"}')


@pytest.mark.parametrize("nonce", ["", "n" * 65, "\u00e9", "\U0001f600" * 2048])
@pytest.mark.parametrize("record", ["CONTRACT_REQUEST", "REFRESH_REQUEST"])
def test_a_nonce_has_a_length(record: str, nonce: str) -> None:
    with pytest.raises(MalformedRequest, match=r"nonce is not 1 to 64 ASCII characters|not one line"):
        read(json.dumps({"recordId": record, "nonce": nonce, "public_key": "k"}).encode())


@given(st.text(), st.integers(200, 1100))
def test_a_reason_is_cut_to_what_a_part_holds(reason: str, room: int) -> None:
    for payload in (Refused(reason=reason * 50, nonce='"' * 64), Expired(reason=reason, nonce="n" * 64)):
        cut = fitting(payload, room)
        assert len(write(cut)) <= room
        assert isinstance(cut, Refused | Expired)
        assert payload.reason.startswith(cut.reason)
        if cut != payload:
            assert len(write(cut)) > room - 24, "no more than needed"


def test_what_has_no_reason_stays_as_it_is() -> None:
    assert fitting(Refresh(nonce="n" * 64, expires_at=3), 20) == Refresh(nonce="n" * 64, expires_at=3)
    assert fitting(Refused(reason="no"), 200) == Refused(reason="no")


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)
records = st.sampled_from(["QUOTE", "CONTRACT_REQUEST", "REFUSED", "x"])


@given(records, st.dictionaries(st.sampled_from(["nonce", "price", "reason", "public_key"]), json_values))
def test_anything_is_read_or_malformed(record: str, values: dict[str, object]) -> None:
    data = json.dumps({"recordId": record, **values}).encode()
    with contextlib.suppress(Malformed):
        assert read(write(read(data))) == read(data)
