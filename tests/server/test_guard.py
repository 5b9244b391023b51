import pytest

from impervious.errors import PermissionDenied
from impervious.server.guard import LOCAL, BrowserRules, CallFacts, authorize, host_name

RULES = BrowserRules.of(
    [("127.0.0.1", 8882), ("127.0.0.1", 8883), ("192.0.2.7", 9000), ("node.lan", 8882)],
    ["https://app.example.com", "http://localhost:3000/"],
    ["Node.Example.com", "[2001:db8::9]"],
)


def verdict(rules: BrowserRules = RULES, arrived_at: str = "127.0.0.1", **headers: str) -> str:
    try:
        rules.check({name.replace("_", "-"): value for name, value in headers.items()}, arrived_at=arrived_at)
    except PermissionDenied as error:
        return str(error)
    return "in"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8882",
        "127.0.0.1",
        "127.0.0.1:1",  # a forwarded port
        "127.9.9.9:8882",
        "localhost:8882",
        "LOCALHOST.",
        "[::1]:8882",
        "192.0.2.7:9000",
        "node.example.com",
        "NODE.example.com.:443",
        "node.lan:8882",
        "[2001:db8::9]:8882",
        "[2001:DB8:0::9]",
    ],
)
def test_hosts_that_are_ours(host: str) -> None:
    assert verdict(host=host) == "in"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8882",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.8",
        "[::2]",
        "2130706433",  # 127.0.0.1, as some resolvers read it
        "0.0.0.0",
        "",
        " ",
        "node.example.com@evil.example",
        "evil.example#localhost",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    told = verdict(host=host)
    assert (told == "in") == (host == "[::1"), told
    if host != "[::1":
        assert "server.allowed_hosts" in told


def test_the_address_a_connection_came_to_is_ours() -> None:
    everywhere = BrowserRules.of([("0.0.0.0", 8882)], [], [])
    assert verdict(everywhere, "203.0.113.5", host="203.0.113.5:8882") == "in"
    assert verdict(everywhere, "203.0.113.5", host="127.0.0.1:8882") == "in"
    assert verdict(everywhere, "203.0.113.5", host="203.0.113.6:8882") != "in"
    assert verdict(everywhere, "2001:db8::1", host="[2001:db8:0::1]:8882") == "in"


def test_programs_without_host_or_origin_are_untouched() -> None:
    assert verdict() == "in"
    assert verdict(host="127.0.0.1:8882") == "in"
    assert verdict(host="127.0.0.1:8882", sec_fetch_mode="cors") == "in"  # Node's fetch


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8882", "127.0.0.1:8882"),
        ("http://localhost:8882", "localhost:8882"),
        ("http://localhost:8883", "localhost:8882"),  # a page of our other listener
        ("https://node.example.com", "node.example.com"),  # a proxy does TLS
        ("http://localhost:9999", "localhost:9999"),  # a forwarded port
        ("https://app.example.com", "127.0.0.1:8882"),
        ("HTTPS://APP.example.com", "127.0.0.1:8882"),
        ("http://localhost:3000", "127.0.0.1:8882"),
        ("http://[::1]:8882", "[::1]:8882"),
    ],
)
def test_origins_that_may(origin: str, host: str) -> None:
    assert verdict(origin=origin, host=host) == "in"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "127.0.0.1:8882"),
        ("null", "127.0.0.1:8882"),
        ("", "127.0.0.1:8882"),
        ("http://localhost:4000", "127.0.0.1:8882"),  # another program of this machine
        ("http://localhost", "localhost:8882"),
        ("http://app.example.com", "127.0.0.1:8882"),
        ("https://app.example.com:8443", "127.0.0.1:8882"),
        ("https://app.example.com.evil.example", "127.0.0.1:8882"),
        ("file://", "127.0.0.1:8882"),
        ("chrome-extension://127.0.0.1:8882", "127.0.0.1:8882"),
        ("http://127.0.0.1:8882@evil.example", "127.0.0.1:8882"),
        ("http://[::1", "127.0.0.1:8882"),
        ("http://127.0.0.1:99999", "127.0.0.1:8882"),
    ],
)
def test_origins_that_may_not(origin: str, host: str) -> None:
    assert "server.cors_origins" in verdict(origin=origin, host=host)


def test_what_a_page_loads_without_an_origin_is_refused_too() -> None:

    def loaded(site: str, mode: str = "no-cors") -> str:
        return verdict(host="127.0.0.1:8882", sec_fetch_site=site, sec_fetch_mode=mode)

    assert "in" not in (loaded("cross-site"), loaded("same-site"))
    assert {loaded("same-origin"), loaded("none"), loaded("cross-site", "navigate")} == {"in"}


def test_what_is_shown_of_a_bad_value_is_short() -> None:
    assert len(verdict(host="x" * 5000)) < 300


def test_host_names() -> None:
    assert [host_name(text) for text in ("[::1]:80", "A.b.:1", " x ", "1.2.3.4:5")] == ["::1", "a.b", "x", "1.2.3.4"]


async def test_today_everyone_who_reaches_the_door_is_let_in() -> None:
    assert await authorize(CallFacts(path="/x", peer="", metadata={})) is LOCAL
