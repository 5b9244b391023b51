import json

from impervious.wire.payloads import SocketOffer, compact, port_text


def test_an_offer_is_what_was_published() -> None:
    """spec of 2021: programs read these keys, the colons included."""
    offer = SocketOffer(ip="1.1.1.1", ports=(6000, 9000))
    assert offer.encode() == b'{"recordId":"SOCKET","protocol":"udp","ip":"1.1.1.1","port1":":6000","port2":":9000"}'


def test_only_another_session_is_named() -> None:
    offer = SocketOffer(ip="2001:db8::1", ports=(1, 65_535), session="jeu à deux")
    assert json.loads(offer.encode()) == {
        "recordId": "SOCKET",
        "protocol": "udp",
        "ip": "2001:db8::1",
        "port1": ":1",
        "port2": ":65535",
        "session": "jeu à deux",
    }


def test_text_stays_text_and_no_byte_is_wasted() -> None:
    assert compact({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    assert port_text(6000) == ":6000"
