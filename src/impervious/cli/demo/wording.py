"""Facts in words: pieces of text with what they mean, which a terminal may colour."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from impervious.cli.demo.facts import (
    Arrived,
    Concluded,
    Done,
    Fact,
    Opened,
    Place,
    Progressed,
    Sent,
    StepBegan,
    StepEnded,
    Stopping,
    TourEnded,
)

_TEXT_CHARS: Final = 60
"""Of a text, on one line of a terminal with everything around it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a line."""

    text: str
    meaning: str = ""
    """heading, good, bad, faint, command, or the name of a node; empty: plain."""


Line = tuple[Piece, ...]


def lines_of(fact: Fact) -> Iterator[Line]:
    """Say what happened; nothing for what only a moving picture can show."""
    match fact:
        case Opened():
            yield from _opened(fact)
        case StepBegan():
            yield ()
            yield (Piece(f"{fact.number}/{fact.steps} {fact.title}", "heading"),)
        case Sent():
            yield (*_at(fact.by), Piece("sends      "), Piece(_quoted(fact.text, fact.size)), *_id(fact.id))
        case Done():
            yield (*_at(fact.at), Piece(f"{fact.did:9}  "), Piece(_printable(fact.text)))
        case Arrived():
            yield _arrived(fact)
        case Concluded():
            yield _concluded(fact)
        case StepEnded():
            yield (Piece(f"  done in {fact.seconds:.2f} s", "good"),)
        case TourEnded():
            yield ()
            yield (Piece(f"Everything arrived: {fact.steps} steps in {fact.seconds:.1f} s.", "good"),)
            if fact.goes_on:
                yield (Piece("Both daemons keep serving; paste the lines above. Ctrl-C stops."),)
        case Stopping():
            yield (Piece("Stopping.", "faint"),)
        case Progressed():
            return


def _opened(fact: Opened) -> Iterator[Line]:
    names = [place.name for place in fact.places]
    yield (Piece(f"A simulated Lightning network, and a daemon on {' and '.join(names)}", "heading"),)
    first, second = (Piece(name, name) for name in names)
    yield (Piece("  "), first, *(Piece(f" -- {name} -- ") for name in fact.between), second)
    for place in fact.places:
        yield ()
        yield from _place(place)
    yield ()
    yield (Piece("Watch carol in another terminal, one or the other:"),)
    carol, alice = fact.places[-1], fact.places[0]
    yield (Piece(f"  curl -N 'http://{carol.http}/v1/subscribe?encoding=text&v=2'", "command"),)
    yield (Piece(f"  websocat 'ws://{carol.http}/v1/subscribe?encoding=text&v=2'", "command"),)
    yield (Piece("Send her a message from alice:"),)
    body = f'{{"pubkey":"{carol.pubkey}","text":"hello"}}'
    yield (Piece(f"  curl -d '{body}' http://{alice.http}/v1/message/send", "command"),)


def _place(place: Place) -> Iterator[Line]:
    yield (Piece(place.name, place.name), Piece(f"  {place.pubkey}"))
    yield (Piece(f"  gRPC {place.grpc}  HTTP {place.http}  HTTP, text {place.text}  LND {place.lnd}"),)


def _arrived(fact: Arrived) -> Line:
    paid = f", {fact.amount_sat} sat" if fact.amount_sat else ""
    what = f"from {fact.sender}{paid}{', a reply' if fact.reply_to else ''}"
    kind = "" if fact.service == "message" else f"{fact.service} "
    return (
        *_at(fact.at),
        Piece("receives   "),
        Piece(f"{kind}{_quoted(fact.text, fact.size)}"),
        Piece(f"  {what}", "faint"),
        *_id(fact.id),
    )


def _concluded(fact: Concluded) -> Line:
    if fact.state != "delivered":
        return (*_at(fact.at), Piece(fact.state, "bad"), Piece(f" {fact.reason}"), *_id(fact.id))
    parts = "1 payment" if fact.parts == 1 else f"{fact.parts} payments"
    cost = f"  {parts}, {fact.amount_sat} sat and {fact.fee_msat} msat in fees"
    return (*_at(fact.at), Piece("delivered", "good"), Piece(cost, "faint"), *_id(fact.id))


def _at(name: str) -> Line:
    return (Piece("  "), Piece(f"{name:5}", name), Piece("  "))


def _id(text: str) -> Line:
    return (Piece(f"  {text[:8]}", "faint"),)


def _quoted(text: str, size: int) -> str:
    """Repeat the beginning of a text; characters that could steer a terminal become dots."""
    shown = _printable(text)
    if len(shown) > _TEXT_CHARS or len(text.encode()) < size:
        return f'"{shown[:_TEXT_CHARS]}..." ({size} bytes)'
    return f'"{shown}"'


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "." for character in text)
