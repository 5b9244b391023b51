import pytest

from impervious.config import load
from impervious.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a", "c.yml:1: this is not a configuration: it must be a mapping"),
        ("hello", "c.yml:1: this is not a configuration"),
        ("log: {}\nvpn: {}\nlog: {}", "c.yml:3: log is given twice (first at c.yml:1): keep one"),
        ("log:\n  level: info\n  level: debug", "c.yml:3: level is given twice"),
        ("? [a]\n: b", "c.yml:1: a key must be a word"),
        ("log:\n\tlevel: info", "c.yml:2: this is not YAML: tabs cannot indent YAML: use spaces"),
        ("log: {", "c.yml:1: this is not YAML: expected the node content"),
        (
            "sqlite3:\n  password: *secret",
            "c.yml:2: this is not YAML: text that begins with *, & or ! must be in quotes",
        ),
        ("a: &secret 1\nb: &secret 2", "text that begins with *, & or ! must be in quotes"),
        ("a: !secret!x 1", "text that begins with *, & or ! must be in quotes"),
        ("log: {}\n---\nvpn: {}", "c.yml:2: this is not YAML: there is a second document"),
        ("log: \x07", "c.yml: this is not YAML text: it contains characters that cannot be printed"),
        ("vpn: &a {b: *a}", "c.yml:1: this is nested too deeply"),
        ("[" * 100_000, "c.yml: this YAML is nested too deeply"),
    ],
)
def test_text_that_is_not_a_configuration(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(text, {}, "c.yml")
    found = str(raised.value)
    assert line in found
    assert "secret" not in found
    assert "\n" not in found
