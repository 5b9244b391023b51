"""Small files: whatever a path leads to, it is read or refused at once."""

import os
from pathlib import Path

import pytest

from impervious.errors import ConfigError
from impervious.files import MAX_FILE_BYTES, read_small_file


def test_a_file_and_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MAX_FILE_BYTES)
    (tmp_path / "b").symlink_to("a")
    assert read_small_file(tmp_path / "b", "key", "cure") == b"x" * MAX_FILE_BYTES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none", "No such file or directory"),
        ("loop", "Too many levels of symbolic links"),
        ("pipe", "not a regular file"),
        (".", "Is a directory"),
        ("nul\0", "embedded null (byte|character)"),
        ("~no-such-user-here/x", "home directory"),
    ],
)
def test_what_cannot_be_read_names_setting_path_and_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=reason) as raised:
        read_small_file(Path(path), "some.key", "the cure")
    assert str(raised.value).startswith(f"some.key: cannot read {Path(path)}: ")
    assert str(raised.value).endswith("; the cure")
