"""Signing and verifying between two nodes of the simulated network."""

from pathlib import Path

import pytest
from tests.conftest import Wall
from tests.walks import two_nodes
from trio.testing import MockClock

from impervious.errors import InvalidArgument, NodeUnavailable
from impervious.services.sign import SignService


async def test_two_nodes_believe_each_other(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, carol):
        me, you = (await alice.wait_ready()).pubkey, (await carol.wait_ready()).pubkey
        signature = await alice.service(SignService).sign("pay carol ö")
        assert len(signature) == 104
        verify = carol.service(SignService).verify
        for text in ("pay carol ö", "pay carol ö".encode()):
            found = await verify(text, signature)
            assert (found.result, found.pubkey, found.in_graph) == (True, me, True)
        assert (await verify("pay carol ö", signature, pubkey=me)).result
        assert not (await verify("pay carol ö", signature, pubkey=you)).result
        other = await verify("pay mallory", signature)
        assert (other.result, other.in_graph) == (False, False)
        assert other.pubkey not in (me, you)


async def test_nothing_is_signed_that_nodes_sign_for_each_other(
    tmp_path: Path, wall: Wall, autojump_clock: MockClock
) -> None:
    async with two_nodes(tmp_path, wall) as (_where, alice, _carol):
        await alice.wait_ready()
        for text in ("impervious/1|regtest|400000|…", "impervious/", b"impervious/2"):
            with pytest.raises(InvalidArgument, match='begins with "impervious/" is not signed'):
                await alice.service(SignService).sign(text)
        assert await alice.service(SignService).sign("impervious")
        assert await alice.service(SignService).sign(" impervious/1")


async def test_while_the_node_is_away_nothing_is_signed(tmp_path: Path, wall: Wall, autojump_clock: MockClock) -> None:
    async with two_nodes(tmp_path, wall) as (where, alice, _carol):
        await alice.wait_ready()
        signature = await alice.service(SignService).sign("text")
        where.network.lnd("alice").lock()
        with pytest.raises(NodeUnavailable, match="lock"):
            await alice.service(SignService).sign("text")
        with pytest.raises(NodeUnavailable, match="lock"):
            await alice.service(SignService).verify("text", signature)
