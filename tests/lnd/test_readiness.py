import time

import pytest
import trio
from tests.lnd.fake import ALICE, BOB, MACAROON, FakeLnd, bake, info, opened, refuses
from tests.lnd.test_watch import becomes

from impervious.errors import NodeMisconfigured
from impervious.lnd import LIGHTNING_NODE, NOTHING, Credentials, LndNode, rpcs
from impervious.lnd.readiness import version
from impervious.model import NodeState
from impervious.pb.lnrpc import WalletState as Wallet


def credentials(**changes: object) -> Credentials:
    fields: dict[str, object] = {"host": "lnd", "port": 10009, "certificate": None, "macaroon": MACAROON}
    return Credentials(**{**fields, **changes})  # type: ignore[arg-type]


async def refusal(node: LndNode) -> str:
    """Why it does not serve."""
    status = await becomes(node, NodeState.REFUSING)
    assert "\n" not in status.reason
    return status.reason


async def test_another_node_is_a_mistake_and_both_keys_are_named(autojump_clock: object) -> None:
    async with opened(FakeLnd(), credentials(pubkey=BOB)) as node:
        with pytest.raises(NodeMisconfigured) as caught:
            await node.wait_ready()
    reason = str(caught.value)
    assert f"is node {ALICE}" in reason
    assert f"says {BOB}" in reason
    assert "lightning.lnd_node.pub_key" in reason


async def test_what_can_be_cured_is_waited_for(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(features={})
    async with opened(fake) as node:
        await refusal(node)
        fake.info = info()
        with trio.fail_after(120):
            assert (await node.wait_ready()).pubkey == ALICE


async def test_the_right_node_is_accepted(autojump_clock: object) -> None:
    async with opened(FakeLnd(), credentials(pubkey=ALICE)) as node:
        assert (await node.wait_ready()).pubkey == ALICE


async def test_an_lnd_without_keysend_is_refused_with_the_setting_that_cures_it(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(features={})
    async with opened(fake) as node:
        reason = await refusal(node)
    assert "accept-keysend=true" in reason
    assert "--accept-keysend" in reason


async def test_missing_permissions_are_named_with_the_command_that_cures_it(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.denied = {"SendPaymentV2", "SignMessage"}
    async with opened(fake) as node:
        reason = await refusal(node)
    assert "does not allow SignMessage, SendPaymentV2:" in reason
    assert "`lncli bakemacaroon --save_to=impervious.macaroon uri:/lnrpc.Lightning/GetInfo " in reason


async def test_a_macaroon_without_getinfo_is_told_like_any_other(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.GET_INFO] = fake.answers[rpcs.CHECK_MACAROON] = refuses("permission denied")
    async with opened(fake, credentials(macaroon=bake(("invoices", "read"), ("offchain", "write")))) as node:
        reason = await refusal(node)
    assert "does not allow GetInfo, GetNodeInfo, QueryRoutes, SignMessage, VerifyMessage, Check" in reason


async def test_all_that_is_missing_is_told_at_once(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(features={})
    fake.denied = {"SendPaymentV2"}
    async with opened(fake) as node:
        reason = await refusal(node)
    assert "SendPaymentV2" in reason
    assert "accept-keysend" in reason


@pytest.mark.parametrize(
    ("age_days", "words"),
    [(9.1, "its newest block is 9 days old"), (0.5, "see that its chain backend runs"), (-9.5, "days from now: set")],
)
async def test_a_chain_that_is_behind_may_be_the_clocks_fault(
    age_days: float, words: str, autojump_clock: object
) -> None:
    fake = FakeLnd()
    fake.info = info(synced_to_chain=False, best_header_timestamp=int(time.time() - age_days * 86_400))
    async with opened(fake) as node:
        assert words in (await becomes(node, NodeState.SYNCING)).reason


async def test_problems_are_found_before_the_chain_is_in_sync(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.wallet, fake.info = Wallet.RPC_ACTIVE, info(features={}, synced_to_chain=False)
    async with opened(fake) as node:
        await refusal(node)


async def test_a_macaroon_of_another_node_is_refused(autojump_clock: object) -> None:
    fake = FakeLnd()
    wrong = refuses("verification failed: signature mismatch after caveat verification")
    fake.answers[rpcs.GET_INFO] = fake.answers[rpcs.CHECK_MACAROON] = wrong
    everything = ("info", "invoices", "offchain", "message", "macaroon")
    granted = bake(*((entity, action) for entity in everything for action in ("read", "write")))
    async with opened(fake, credentials(macaroon=granted)) as node:
        reason = await refusal(node)
    assert "signature mismatch" in reason
    assert "lightning.lnd_node.admin_macaroon" in reason
    assert granted.hex() not in reason


async def test_an_answer_that_is_no_lnds_is_not_taken_for_one(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(identity_pubkey="nonsense")
    async with opened(fake) as node:
        status = await node.status_after(node.status)
        assert status.state is NodeState.AWAY
        assert "makes no sense" in status.reason


async def test_a_client_that_only_looks_needs_neither_keysend_nor_permissions(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(features={})
    fake.denied = {"SendPaymentV2"}
    async with opened(fake, requires=NOTHING) as node:
        await becomes(node, NodeState.READY)


async def test_without_a_macaroon_permissions_are_not_asked_about(autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.answers[rpcs.CHECK_MACAROON] = refuses("must not be asked")
    async with opened(fake, credentials(macaroon=None)) as node:
        await becomes(node, NodeState.READY)
    assert all("macaroon" not in call.metadata for call in fake.calls)


@pytest.mark.parametrize("text", ["0.17.5-beta commit=v0.17.5-beta", "0.4", "v0.17.99-rc1"])
async def test_an_lnd_that_is_too_old_is_refused_with_the_lowest_that_works(text: str, autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(version=text)
    async with opened(fake, requires=LIGHTNING_NODE) as node:
        reason = await refusal(node)
        assert f"LND is version {text}, and 0.18 is the lowest" in reason
        fake.info = info()
        with trio.fail_after(120):
            await node.wait_ready()


@pytest.mark.parametrize(
    "text",
    [
        "0.18.0-beta",
        "0.18.0-beta.rc1",
        "v0.20.1",
        "0.18-custom",
        "1.0",
        "0.19.3-beta commit=lightning-terminal-v0.15.3-alpha",
        "",
        "unknown",
        "dev build 7",
        "0.0.0",
        "nightly-2026.01",
    ],
)
async def test_any_other_version_is_not(text: str, autojump_clock: object) -> None:
    fake = FakeLnd()
    fake.info = info(version=text)
    async with opened(fake, requires=LIGHTNING_NODE) as node:
        await becomes(node, NodeState.READY)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.21.2-beta commit=v0.21.2-beta", (0, 21)),
        ("0.13.0-beta", (0, 13)),
        ("1.0.0", (1, 0)),
        ("", (0, 14)),
        ("unknown", (0, 14)),
    ],
)
def test_versions(text: str, numbers: tuple[int, int]) -> None:
    assert version(text) == numbers
