"""Read the small files that the configuration names, whatever is there.

A path may lead to a folder, a pipe without a writer or a device without an end: none of them may block the daemon or
fill its memory, so only regular files up to `MAX_FILE_BYTES` are read.
"""

import os
import stat
import string
from pathlib import Path
from typing import Final

from impervious.errors import ConfigError

MAX_FILE_BYTES: Final = 1 << 20
"""Certificate chains and macaroons have a few KiB."""
_LONGEST_HEX_NAME: Final = 64
"""Characters; a file may be named after a hash, a macaroon is longer."""


def read_small_file(path: Path, key: str, cure: str) -> bytes:
    """Read a file that a setting names.

    Args:
      path: the value of the setting; `~` is expanded.
      key: the setting, for error texts.
      cure: what to put there instead, for error texts.

    Raises:
      ConfigError: it cannot be read; names the setting and the path, never the content.
    """
    if len(path.name) > _LONGEST_HEX_NAME and is_hex(path.name.encode()):
        # The path is not repeated here: it may be a macaroon.
        hint = f": {key}_hex takes hex" if key.startswith("lightning.") else ""
        raise ConfigError(f"{key} must be the path of a file, not its contents in hex{hint}")
    try:
        return _read(path.expanduser())
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror or error}; {cure}") from None
    except (ValueError, RuntimeError) as error:  # a zero byte in the path; a home directory that does not exist
        raise ConfigError(f"{key}: cannot read {path}: {error}; {cure}") from None


def _read(path: Path) -> bytes:
    # Non-blocking, because opening a pipe waits for its writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(0, f"larger than {MAX_FILE_BYTES >> 20} MiB")
    return content


def is_hex(content: bytes) -> bool:
    """Return whether every byte is a hexadecimal digit."""
    return all(byte in string.hexdigits.encode() for byte in content)
