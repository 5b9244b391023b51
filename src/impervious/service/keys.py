"""Idempotency keys as callers give them."""

from typing import Final

from impervious.errors import InvalidArgument

MAX_KEY_BYTES: Final = 255


def checked_key(given: str) -> str:
    """Check a caller's key.

    Raises:
      InvalidArgument: it is none.
    """
    if not 0 < len(given.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES:
        raise InvalidArgument(f"Idempotency-Key must have 1 to {MAX_KEY_BYTES} bytes")
    return given
