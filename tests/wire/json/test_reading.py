import base64
import json
import math
from dataclasses import dataclass

import betterproto2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from impervious.errors import InvalidArgument
from impervious.pb.lightning import GenerateInvoiceRequest, PayInvoiceRequest
from impervious.pb.messaging import SendMessageRequest
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse
from impervious.wire.json import Encoding, decode
from impervious.wire.json.reading import MAX_VALUES


class Colour(betterproto2.Enum):
    UNKNOWN = 0
    RED = 1
    GREEN = 2

    @classmethod
    def betterproto_value_to_renamed_proto_names(cls) -> dict[int, str]:
        return {0: "COLOUR_UNKNOWN", 1: "COLOUR_RED"}


@dataclass(eq=False, repr=False)
class Beast(betterproto2.Message):
    """Every kind of field that protobuf has and our API may come to use."""

    i32: "int" = betterproto2.field(1, betterproto2.TYPE_INT32)
    u32: "int" = betterproto2.field(2, betterproto2.TYPE_UINT32)
    i64: "int" = betterproto2.field(3, betterproto2.TYPE_INT64)
    u64: "int" = betterproto2.field(4, betterproto2.TYPE_UINT64)
    fx64: "int" = betterproto2.field(5, betterproto2.TYPE_SFIXED64)
    single: "float" = betterproto2.field(6, betterproto2.TYPE_FLOAT)
    double: "float" = betterproto2.field(7, betterproto2.TYPE_DOUBLE)
    flag: "bool" = betterproto2.field(8, betterproto2.TYPE_BOOL)
    name: "str" = betterproto2.field(9, betterproto2.TYPE_STRING)
    raw: "bytes" = betterproto2.field(10, betterproto2.TYPE_BYTES)
    colour: "Colour" = betterproto2.field(11, betterproto2.TYPE_ENUM, default_factory=lambda: Colour(0))
    maybe: "int | None" = betterproto2.field(12, betterproto2.TYPE_INT32, optional=True)
    names: "list[str]" = betterproto2.field(13, betterproto2.TYPE_STRING, repeated=True)
    colours: "list[Colour]" = betterproto2.field(14, betterproto2.TYPE_ENUM, repeated=True)
    young: "list[Beast]" = betterproto2.field(15, betterproto2.TYPE_MESSAGE, repeated=True)
    mate: "Beast | None" = betterproto2.field(16, betterproto2.TYPE_MESSAGE, optional=True)
    by_number: "dict[int, bytes]" = betterproto2.field(
        17, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_UINT64, betterproto2.TYPE_BYTES)
    )
    by_flag: "dict[bool, Colour]" = betterproto2.field(
        18, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_BOOL, betterproto2.TYPE_ENUM)
    )
    by_name: "dict[str, Beast]" = betterproto2.field(
        19, betterproto2.TYPE_MAP, map_meta=betterproto2.map_meta(betterproto2.TYPE_STRING, betterproto2.TYPE_MESSAGE)
    )
    wings: "int | None" = betterproto2.field(20, betterproto2.TYPE_INT32, optional=True, group="limbs")
    fins: "int | None" = betterproto2.field(21, betterproto2.TYPE_INT32, optional=True, group="limbs")
    from_: "str" = betterproto2.field(22, betterproto2.TYPE_STRING)


def refusal(message_type: type[betterproto2.Message], text: bytes, encoding: Encoding = Encoding.BASE64) -> str:
    with pytest.raises(InvalidArgument) as raised:
        decode(message_type, text, encoding=encoding)
    return str(raised.value)


def beast(value: str) -> Beast:
    return decode(Beast, value.encode())


class TestTheBody:
    @pytest.mark.parametrize("body", [b"", b" \r\n\t", b"{}", b"null", b"\xef\xbb\xbf{}"])
    def test_nothing_is_the_default_message(self, body: bytes) -> None:
        assert decode(SendMessageRequest, body) == SendMessageRequest()

    def test_both_kinds_of_names(self) -> None:
        expected = SendMessageRequest(reply_to_id="x")
        assert decode(SendMessageRequest, b'{"replyToId":"x"}') == expected
        assert decode(SendMessageRequest, b'{"reply_to_id":"x"}') == expected
        assert beast('{"from": "x"}') == Beast(from_="x")
        assert beast('{"from_": "x"}') == Beast()

    def test_unknown_fields_are_ignored_whatever_they_hold(self) -> None:
        body = b'{"pubkey": "02", "memo": "m", "deep": {"a": [1, {"b": 1e999}], "pubkey": 5}}'
        assert decode(GenerateInvoiceRequest, body) == GenerateInvoiceRequest(memo="m")

    def test_null_is_the_default(self) -> None:
        names = ["msg", "pubkey", "amount", "replyToId", "wait", "text"]
        assert decode(SendMessageRequest, json.dumps(dict.fromkeys(names)).encode()) == SendMessageRequest()
        names = ["colour", "maybe", "names", "mate", "byNumber", "byName", "wings", "fins"]
        assert beast(json.dumps(dict.fromkeys(names))) == Beast()

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b'{"amount": 1, "amount": 2}', "amount is given twice: give it once"),
            (b'{"amount": 1, "amount": 1}', "amount is given twice: give it once"),
            (b'{"amount": null, "amount": 1}', "amount is given twice: give it once"),
            (b'{"amount": 1, "\\u0061mount": 1}', "amount is given twice: give it once"),
            (b'{"unknown": 1, "unknown": 1}', "unknown is given twice: give it once"),
            (b'{"unknown": [{"x": 1, "x": 1}]}', "unknown[0].x is given twice: give it once"),
            (b'{"x": {"b": 1, "a": 1, "a": 2}}', "x.a is given twice: give it once"),
            (b'{"x": {"a": 1, "a": 2}, "x": 1}', "x is given twice: give it once"),
            (b'{"x": [[1, {"y": {"a": 1, "a": 2}}]]}', "x[0][1].y.a is given twice: give it once"),
            (b'{"x":' * 200 + b'{"a": 1, "a": 2}' + b"}" * 200, "a member is given twice: give it once"),
            (b'{"\\n": 1, "\\n": 1}', "a member is given twice: give it once"),
            (
                b'{"replyToId": "a", "reply_to_id": "b"}',
                "reply_to_id is replyToId, which is given too: give one of them",
            ),
            (
                b'{"reply_to_id": null, "replyToId": "b"}',
                "replyToId is reply_to_id, which is given too: give one of them",
            ),
        ],
    )
    def test_a_member_given_twice(self, body: bytes, problem: str) -> None:
        assert refusal(SendMessageRequest, body) == problem

    @pytest.mark.parametrize(
        "body",
        [
            b'{"x": [' + b"1," * 2_000_000 + b"1]}",
            b"[" + b"[]," * 20_000 + b"[]]",
            b'{"x": [' + b'"",' * 20_000 + b'""]}',
            b'"",' * 1_000_000,
        ],
    )
    def test_too_many_values(self, body: bytes) -> None:
        assert refusal(SendMessageRequest, body) == f"the body has more than {MAX_VALUES} values: send less at once"

    @pytest.mark.parametrize("text", [",:[{" * 10_000, "\\", '"', '\\",[' * 10_000, "\n" * 10_000])
    def test_what_is_inside_a_string_does_not_count(self, text: str) -> None:
        body = json.dumps({"text": text, "pubkey": ","}).encode()
        assert decode(SendMessageRequest, body) == SendMessageRequest(text=text, pubkey=",")

    @given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=50))
    def test_nothing_small_is_too_much(self, value: object) -> None:
        assert decode(SendMessageRequest, json.dumps({"x": value}).encode()) == SendMessageRequest()

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b"msg=hello", "the body is not JSON: expecting value (line 1, column 1)"),
            (b'{"msg": \n}', "the body is not JSON: expecting value (line 2, column 1)"),
            (b"{'msg': 1}", "the body is not JSON: expecting property name"),
            (b"{} {}", "the body is not JSON: extra data"),
            (b'{"a": NaN}', "the body is not JSON: NaN is no number"),
            (b'{"a": -Infinity}', "the body is not JSON: -Infinity is no number"),
            (b'{"amount": 01}', "the body is not JSON: expecting ',' delimiter"),
            (b'{"pubkey": "a\nb"}', "the body is not JSON: invalid control character"),
            (b'{"pubkey": "\xff"}', "the body is not UTF-8 text (byte 13)"),
            ("{}".encode("utf-16"), "the body is not UTF-8 text (byte 1)"),
            (b"[]", "the body must be an object, in braces"),
            (b'"x"', "the body must be an object, in braces"),
            (b"5", "the body must be an object, in braces"),
            (b"[" * 200_000, "the body's JSON is nested too deeply"),
            (b'{"a":' * 200_000, "the body's JSON is nested too deeply"),
        ],
    )
    def test_what_is_no_json_object(self, body: bytes, problem: str) -> None:
        assert problem in refusal(SendMessageRequest, body)

    def test_deep_nesting_of_a_type_in_itself(self) -> None:
        assert "nested too deeply" in refusal(Beast, b'{"mate":' * 100_000 + b"{}" + b"}" * 100_000)
        assert beast('{"mate":' * 20 + '{"name": "x"}' + "}" * 20) != Beast()


class TestIntegers:
    @pytest.mark.parametrize(
        ("value", "number"),
        [
            ("0", 0),
            ("-0", 0),
            ("5", 5),
            ('"5"', 5),
            ("5.0", 5),
            ('"5.00"', 5),
            ("5e0", 5),
            ("1e3", 1000),
            ('"1E+3"', 1000),
            ("1500e-2", 15),
            ("0e999999999", 0),
            ("9007199254740993", 2**53 + 1),
            ("9007199254740993.0", 2**53 + 1),
            ('"9223372036854775807"', 2**63 - 1),
            ("9223372036854775807", 2**63 - 1),
            ("-9223372036854775808", -(2**63)),
        ],
    )
    def test_every_way_to_write_one(self, value: str, number: int) -> None:
        assert beast(f'{{"i64": {value}}}').i64 == number
        assert decode(SendMessageRequest, f'{{"amount": {value}}}'.encode()).amount == number

    @pytest.mark.parametrize(
        "value",
        [
            *("1.5", '"1.5"', "1e-1", "1e-999999999", "9223372036854775808", "-9223372036854775809"),
            *("1e19", "1e400", "1e999999999", "1e9999999999999999999", "-1e400"),
            *("9" * 5000, f'"{"9" * 5000}"', "0." + "9" * 50, str(2**70)),
        ],
    )
    def test_what_is_not_whole_or_out_of_range(self, value: str) -> None:
        problem = refusal(SendMessageRequest, f'{{"amount": {value}}}'.encode())
        text = value.strip('"')
        got = text if len(text) <= 40 else text[:40] + "…"
        assert problem == f"amount must be whole satoshis, 0 or more (got {got})"

    @pytest.mark.parametrize(
        "value",
        [
            "true",
            "false",
            '""',
            '" 5"',
            '"5 "',
            '"+5"',
            '"05"',
            '"0x5"',
            '"5_0"',
            '"\u0665"',
            '"five"',
            '"NaN"',
            "[5]",
            "{}",
        ],
    )
    def test_what_is_no_number(self, value: str) -> None:
        problem = refusal(SendMessageRequest, f'{{"amount": {value}}}'.encode())
        assert problem == "amount must be a number, with or without quotes"

    @pytest.mark.parametrize(
        ("field", "low", "high"),
        [("i32", -(2**31), 2**31 - 1), ("u32", 0, 2**32 - 1), ("u64", 0, 2**64 - 1), ("fx64", -(2**63), 2**63 - 1)],
    )
    def test_the_limits_of_each_type(self, field: str, low: int, high: int) -> None:
        for number in (low, high):
            assert getattr(beast(f'{{"{field}": {number}}}'), field) == number
        for number in (low - 1, high + 1):
            assert f"{field} must be a whole number from {low} to {high}" == refusal(
                Beast, f'{{"{field}": "{number}"}}'.encode()
            )


class TestFloats:
    @pytest.mark.parametrize(
        ("value", "number"), [("1.5", 1.5), ('"1.5"', 1.5), ("2", 2.0), ('"-Infinity"', -math.inf)]
    )
    def test_every_way_to_write_one(self, value: str, number: float) -> None:
        assert beast(f'{{"double": {value}, "single": {value}}}') == Beast(double=number, single=number)

    def test_no_number(self) -> None:
        assert math.isnan(beast('{"double": "NaN"}').double)

    @pytest.mark.parametrize(
        ("field", "value"), [("double", "1e400"), ("double", '"-1e400"'), ("single", "3.5e38"), ("single", "-1e39")]
    )
    def test_too_large(self, field: str, value: str) -> None:
        assert refusal(Beast, f'{{"{field}": {value}}}'.encode()) == f"{field} is too large for its type"

    def test_what_is_no_number(self) -> None:
        assert refusal(Beast, b'{"double": "x"}') == "double must be a number, with or without quotes"
        assert refusal(Beast, b'{"double": true}') == "double must be a number, with or without quotes"


class TestWords:
    @pytest.mark.parametrize("value", ['"true"', "1", "0", '""', "[]"])
    def test_switches_are_true_or_false(self, value: str) -> None:
        assert refusal(SendMessageRequest, f'{{"wait": {value}}}'.encode()) == (
            "wait must be true or false, without quotes"
        )

    @pytest.mark.parametrize("value", ["5", "true", "[]", "{}"])
    def test_strings_are_in_quotes(self, value: str) -> None:
        assert refusal(SendMessageRequest, f'{{"pubkey": {value}}}'.encode()) == "pubkey must be a string, in quotes"

    def test_half_characters(self) -> None:
        assert "pubkey contains a lone surrogate" in refusal(SendMessageRequest, rb'{"pubkey": "\ud83d"}')
        assert "msg contains a lone surrogate" in refusal(SendMessageRequest, rb'{"msg": "\udc00"}', Encoding.TEXT)
        assert decode(SendMessageRequest, rb'{"pubkey": "\ud83d\ude00"}').pubkey == "\U0001f600"

    @pytest.mark.parametrize(
        ("value", "colour"),
        [('"COLOUR_RED"', Colour.RED), ('"GREEN"', Colour.GREEN), ("1", Colour.RED), ("2.0", Colour.GREEN), ("7", 7)],
    )
    def test_enums_by_name_or_number(self, value: str, colour: int) -> None:
        assert beast(f'{{"colour": {value}}}').colour == colour

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ('"2"', "must be one of COLOUR_UNKNOWN, COLOUR_RED, GREEN"),
            ('"RED"', "must be one of COLOUR_UNKNOWN, COLOUR_RED, GREEN"),
            ("1.5", "must be a whole number from -2147483648 to 2147483647"),
            ("true", "must be a number, with or without quotes"),
        ],
    )
    def test_enums_that_are_none(self, value: str, problem: str) -> None:
        assert refusal(Beast, f'{{"colour": {value}}}'.encode()) == f"colour {problem}"


class TestBytes:
    @pytest.mark.parametrize(
        ("text", "raw"),
        [
            ("", b""),
            ("aGVsbG8=", b"hello"),
            ("aGVsbG8", b"hello"),
            ("-_-_", b"\xfb\xff\xbf"),
            ("+/+/", b"\xfb\xff\xbf"),
            ("-_8", b"\xfb\xff"),
            ("-_8=", b"\xfb\xff"),
            ("test", b"\xb5\xeb-"),
            ("QR==", b"A"),
        ],
    )
    def test_base64_of_both_alphabets_padded_or_not(self, text: str, raw: bytes) -> None:
        assert decode(SendMessageRequest, json.dumps({"msg": text}).encode()).msg == raw
        for encoding in Encoding:
            body = json.dumps({"description_hash": text}).encode()
            assert decode(GenerateInvoiceRequest, body, encoding=encoding).description_hash == raw

    @pytest.mark.parametrize(
        "text",
        [
            *("hello!", "aGVs bG8=", "aGVsbG8=\n", "aGVs\nbG8=", "\taGVs", "aGVsbG8==", "aGVsbG8=x", "=aGVsbG8", "a"),
            *("aGVsb", "====", "QQ=", "QQ==QQ==", "ä", "aGVs\u0000", "aGVs,bG8=", "Q=Q="),
        ],
    )
    def test_what_is_no_base64_names_the_text_mode(self, text: str) -> None:
        problem = refusal(SendMessageRequest, json.dumps({"msg": text}).encode())
        assert problem.startswith("msg is not base64: encode it")
        assert "?encoding=text" in problem
        assert "server.http_text_addr" in problem
        problem = refusal(GenerateInvoiceRequest, json.dumps({"descriptionHash": text}).encode())
        assert problem.startswith("descriptionHash is not base64: encode it")
        assert "text" not in problem

    def test_numbers_are_no_bytes(self) -> None:
        assert refusal(SendMessageRequest, b'{"msg": 5}') == "msg must be a string of base64, in quotes"
        assert refusal(SendMessageRequest, b'{"msg": 5}', Encoding.TEXT) == "msg must be a string, in quotes"

    @given(st.binary())
    def test_any_bytes(self, raw: bytes) -> None:
        for text in (base64.b64encode(raw), base64.urlsafe_b64encode(raw), base64.b64encode(raw).rstrip(b"=")):
            assert decode(SendMessageRequest, b'{"msg": "%b"}' % text).msg == raw

    @given(st.text(st.characters(codec="utf-8")))
    def test_any_text_in_text_mode(self, text: str) -> None:
        for ascii_only in (True, False):
            body = json.dumps({"msg": text}, ensure_ascii=ascii_only).encode()
            assert decode(SendMessageRequest, body, encoding=Encoding.TEXT).msg == text.encode()
            body = json.dumps({"data": text}, ensure_ascii=ascii_only).encode()
            assert decode(SubscribeResponse, body, encoding=Encoding.TEXT).data == text.encode()

    def test_data_that_says_what_it_is(self) -> None:
        """`data` beside `msg` is an addition of ours: base64 in either encoding."""
        for encoding in Encoding:
            assert decode(SendMessageRequest, b'{"data": "aGk="}', encoding=encoding).data == b"hi"


class TestManyAndNested:
    def test_lists(self) -> None:
        assert decode(SubscribeRequest, b'{"serviceType": ["vpn", "message"]}').service_type == ["vpn", "message"]
        assert beast('{"colours": ["GREEN", 1], "young": [{"name": "a"}, {}]}') == Beast(
            colours=[Colour.GREEN, Colour.RED], young=[Beast(name="a"), Beast()]
        )

    def test_maps(self) -> None:
        body = (
            '{"byNumber": {"18446744073709551615": "QQ"}, "byFlag": {"true": "GREEN", "false": 1}, "byName": {"": {}}}'
        )
        assert beast(body) == Beast(
            by_number={2**64 - 1: b"A"}, by_flag={True: Colour.GREEN, False: Colour.RED}, by_name={"": Beast()}
        )

    def test_presence(self) -> None:
        assert decode(SubscribeRequest, b"{}").since is None
        assert decode(SubscribeRequest, b'{"since": null}').since is None
        assert decode(SubscribeRequest, b'{"since": 0}').since == 0
        assert beast('{"mate": {}}').mate == Beast()

    def test_one_of_several(self) -> None:
        assert beast('{"wings": 2, "fins": null}') == Beast(wings=2)
        assert refusal(Beast, b'{"wings": 2, "fins": 0}') == "fins cannot be given together with wings: choose one"
        assert refusal(Beast, b'{"fins": 1, "fins": 2}') == "fins is given twice: give it once"

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ('{"names": "a"}', "names must be a list, in brackets"),
            ('{"names": {}}', "names must be a list, in brackets"),
            ('{"names": ["a", null]}', "names[1] must be a string, in quotes"),
            ('{"mate": []}', "mate must be an object, in braces"),
            ('{"mate": {"young": [{}, {"i32": "x"}]}}', "mate.young[1].i32 must be a number, with or without quotes"),
            ('{"byNumber": []}', "byNumber must be an object, in braces"),
            ('{"byNumber": {"1": "QQ", "x": "QQ"}}', "byNumber.key 2 must be a number, with or without quotes"),
            ('{"byNumber": {"1": "?"}}', "byNumber['1'] is not base64: encode it"),
            ('{"byNumber": {"-1": ""}}', "byNumber.key 1 must be a whole number from 0 to"),
            ('{"byFlag": {"1": 1}}', "byFlag.key 1 must be true or false"),
            ('{"byName": {"a": null}}', "byName['a'] must be an object, in braces"),
            ('{"byName": {"a": {"flag": 1}}}', "byName['a'].flag must be true or false, without quotes"),
        ],
    )
    def test_an_error_says_where(self, body: str, problem: str) -> None:
        assert problem in refusal(Beast, body.encode())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(list(Beast.__dataclass_fields__)), _JSON))
def test_any_json_is_read_or_refused(value: dict[str, object]) -> None:
    try:
        found = decode(Beast, json.dumps(value).encode())
    except InvalidArgument:
        return
    bytes(found)


@given(st.binary())
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(decode(PayInvoiceRequest, body), PayInvoiceRequest)
    except InvalidArgument:
        return
