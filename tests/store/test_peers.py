"""Peers, and whose a name is."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conftest import inline
from tests.store.still import Still

from impervious.errors import FailedPrecondition, NotFound
from impervious.model import NodePubkey, Peer
from impervious.store import Store, open_store, peers

ANN, BEN, CYD = (NodePubkey(b"\x02" + bytes([number]) * 32) for number in (10, 11, 12))


@pytest.fixture
def wall() -> Still:
    return Still()


@pytest.fixture
async def store(tmp_path: Path, wall: Still) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "imp.db", now_ms=wall, run_sync=inline) as opened:
        yield opened


async def remember(
    store: Store, pubkey: NodePubkey, name: str, expires_ms: int, *, stranger: bool = False, since_ms: int = 1
) -> Peer:
    peer = Peer(pubkey=pubkey, imp_id=name, since_ms=since_ms, expires_ms=expires_ms, services=("message",))
    await store.write(lambda tx: peers.remember(tx, peer, stranger=stranger))
    return peer


async def owner(store: Store, name: str) -> NodePubkey:
    return (await store.read(lambda tx: peers.named(tx, name))).pubkey


async def test_a_peer_is_there_until_its_time_is_over(store: Store, wall: Still) -> None:
    first = await remember(store, ANN, "ann", wall() + 5)
    other = await remember(store, BEN, "ben", wall() + 6)
    assert await store.read(peers.next_expiry_ms) == wall() + 5
    assert await store.read(peers.everyone) == [first, other]
    wall.offset_ms += 4
    assert await store.read(lambda tx: peers.find(tx, ANN)) == first
    assert await store.write(peers.take_expired) == []
    wall.offset_ms += 1
    assert await store.read(lambda tx: peers.find(tx, ANN)) is None
    assert await store.read(peers.everyone) == [other]
    with pytest.raises(NotFound):
        await owner(store, "ann")
    assert await store.write(peers.take_expired) == [first]
    assert await store.write(lambda tx: peers.forget(tx, BEN))
    assert not await store.write(lambda tx: peers.forget(tx, BEN))
    assert await store.read(peers.next_expiry_ms) is None


async def test_a_name_is_its_first_owners_until_that_is_gone(store: Store, wall: Still) -> None:
    await remember(store, BEN, "carol", wall() + 5)
    await remember(store, ANN, "carol", wall() + 9)
    await remember(store, CYD, "cyd", wall() + 9)
    assert (await owner(store, "carol"), await owner(store, "cyd")) == (BEN, CYD)
    await remember(store, BEN, "carol", wall() + 7, since_ms=2)
    assert await owner(store, "carol") == BEN
    wall.offset_ms += 6
    assert await owner(store, "carol") == BEN
    wall.offset_ms += 1
    with pytest.raises(FailedPrecondition, match=ANN.hex):
        await owner(store, "carol")
    await remember(store, CYD, "carol", wall() + 9)
    assert await owner(store, "carol") == CYD
    with pytest.raises(NotFound):
        await owner(store, "cyd")
    await remember(store, BEN, "carol", wall() + 9)
    assert await owner(store, "carol") == CYD, "who comes back late comes last"


async def test_strangers_are_counted_while_they_live(store: Store, wall: Still) -> None:
    async def count() -> int:
        return await store.read(peers.strangers)

    await remember(store, ANN, "ann", wall() + 5, stranger=True)
    await remember(store, BEN, "ben", wall() + 9, stranger=True)
    await remember(store, CYD, "cyd", wall() + 9)
    assert await count() == 2
    await remember(store, CYD, "cyd", wall() + 9, stranger=True)
    await remember(store, BEN, "ben", wall() + 9)
    assert await count() == 1, "whom we asked is none, before and after"
    wall.offset_ms += 5
    assert await count() == 0


async def test_what_is_new_of_a_peer_replaces_what_was_known_of_it_alone(store: Store, wall: Still) -> None:
    kept = await remember(store, ANN, "ann", wall() + 7)
    await remember(store, BEN, "ben", wall() + 5)
    news = Peer(pubkey=BEN, imp_id="ann", since_ms=9, expires_ms=wall() + 6, services=("vpn", "kv"))
    await store.write(lambda tx: peers.remember(tx, news))
    assert await store.read(lambda tx: peers.find(tx, BEN)) == news
    assert await owner(store, "ann") == ANN, "who takes the name of another has none"
    with pytest.raises(NotFound):
        await owner(store, "ben")
    wall.offset_ms += 7
    assert await store.write(peers.take_expired) == [news, kept], "in the order of their ends"
    for pubkey in (ANN, BEN):
        await remember(store, pubkey, "x", wall() + 5)
    await store.write(lambda tx: peers.forget(tx, ANN))
    assert [each.pubkey for each in await store.read(peers.everyone)] == [BEN]
