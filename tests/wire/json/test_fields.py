from dataclasses import dataclass

import betterproto2
import pytest

from impervious.pb.socket import StartSocketResponse
from impervious.pb.websocket import SubscribeResponse
from impervious.wire.json.fields import Encoding, fields_of


@dataclass(eq=False, repr=False)
class Odd(betterproto2.Message):
    class_: "int" = betterproto2.field(1, betterproto2.TYPE_INT32)
    a_1b_c: "int" = betterproto2.field(2, betterproto2.TYPE_INT32)


@dataclass(eq=False, repr=False)
class Wrapped(betterproto2.Message):
    when: "int | None" = betterproto2.field(1, betterproto2.TYPE_MESSAGE, unwrap=lambda: Odd, optional=True)


def test_names() -> None:
    assert [field.json_name for field in fields_of(SubscribeResponse)] == (
        ["id", "replyToId", "fromPubkey", "data", "serviceType", "amount", "seq", "sentAtMs", "verified", "order"]
    )
    assert "port1" in [field.json_name for field in fields_of(StartSocketResponse)]
    assert [(field.proto_name, field.json_name) for field in fields_of(Odd)] == [("class", "class"), ("a_1b_c", "a1bC")]


def test_types_with_a_json_form_of_their_own_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"Wrapped\.when"):
        list(fields_of(Wrapped))


def test_encodings_are_the_words_of_the_configuration_and_the_query() -> None:
    assert Encoding("text") is Encoding.TEXT
    assert [str(encoding) for encoding in Encoding] == ["base64", "text"]
