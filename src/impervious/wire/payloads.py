"""What services say to each other: JSON in UTF-8, in shapes that both nodes know. A reader ignores keys it does not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketOffer:
    """Where a relay is, told to the node that is to use it."""

    ip: str
    """An address, or a host name, that the other node can reach."""
    ports: tuple[int, int]
    session: str = ""
    """Its name; empty: the one that the calls of 2021 act on."""

    def encode(self) -> bytes:
        """Write it as it was published; the name is ours, so it is only there when it says something."""
        first, second = self.ports
        shape = {
            "recordId": "SOCKET",
            "protocol": "udp",
            "ip": self.ip,
            "port1": port_text(first),
            "port2": port_text(second),
        }
        return compact(shape | ({"session": self.session} if self.session else {}))


def port_text(port: int) -> str:
    """Write a port as it was published: with a leading colon."""
    return f":{port}"


def compact(shape: Mapping[str, object]) -> bytes:
    """Write JSON without spaces: every byte of a message costs room in an onion."""
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")).encode()
