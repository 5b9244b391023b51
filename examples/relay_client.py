"""Talks through an Impervious relay, a line a datagram: python relay_client.py HOST PORT [TOKEN].

TOKEN is the hex that StartSocket returned for this port when `socket.require_token` is on (docs/relay.md). `join` is
what your own program needs of this; nothing but Python is needed for it.
"""

import hmac
import os
import secrets
import select
import socket
import sys
import time

HELLO, CHALLENGE, ANSWER, READY = (b"IMR1" + bytes([kind]) for kind in (1, 2, 3, 4))
KEEPALIVE_S = 15.0  # many routers forget a UDP connection that is silent for 30 s, and the relay gives its place away


def join(relay: socket.socket, token: bytes) -> None:
    """Prove that we know the token and that we receive at this address; `relay` is connected to the relay's port."""
    nonce = secrets.token_bytes(16)
    cookie = ask(relay, token, HELLO + nonce, CHALLENGE + nonce)[-16:]
    ask(relay, token, ANSWER + cookie, READY + hmac.digest(token, READY + cookie, "sha256"))


def ask(relay: socket.socket, token: bytes, frame: bytes, expected: bytes) -> bytes:
    """Send a frame with its proof, again and again, until what is expected comes back."""
    for wait_s in (0.25, 0.5, 1.0, 2.0, 4.0):
        relay.send(frame + hmac.digest(token, frame, "sha256"))
        while select.select([relay], [], [], wait_s)[0]:
            if (reply := relay.recv(65_535)).startswith(expected):
                return reply
    sys.exit("the relay does not answer: is it started, and do port and token belong together?")


def main() -> None:
    """Join, then pass datagrams on in both directions until the end of the input."""
    host, port, *token = sys.argv[1:]
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as relay:
        relay.connect(address)
        if token:
            join(relay, bytes.fromhex(token[0]))
        due = 0.0  # at once: without a token an empty datagram is what teaches the relay our address
        while True:
            if time.monotonic() >= due:
                relay.send(b"")
                due = time.monotonic() + KEEPALIVE_S
            ready = select.select([relay, sys.stdin], [], [], 1.0)[0]
            if relay in ready:
                print(relay.recv(65_535).decode(errors="replace"), flush=True)
            if sys.stdin in ready:
                if not (typed := os.read(0, 60_000)):
                    return
                for line in typed.splitlines():
                    relay.send(line)


if __name__ == "__main__":
    main()
