"""How far one LND is from serving us: its wallet's state, who it is, what it lacks.

Every answer is a state and a sentence that says what cures it. Nothing here waits for a cure; `watch` asks again.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from impervious.errors import NodeUnavailable
from impervious.lnd import convert
from impervious.lnd.connection import Connection, call
from impervious.lnd.faults import LndRefused, MacaroonRefused
from impervious.lnd.permissions import bake_command, missing
from impervious.lnd.rpcs import (
    ADD_INVOICE,
    CHANNEL_BALANCE,
    CHECK_MACAROON,
    DECODE_PAY_REQ,
    GET_INFO,
    GET_NODE_INFO,
    LIST_CHANNELS,
    LIST_INVOICES,
    LIST_PAYMENTS,
    LOOKUP_INVOICE,
    QUERY_ROUTES,
    SEND_PAYMENT,
    SEND_TO_ROUTE,
    SIGN_MESSAGE,
    SUBSCRIBE_CHANNELS,
    SUBSCRIBE_INVOICES,
    TRACK_PAYMENT,
    VERIFY_MESSAGE,
    WALLET_BALANCE,
    AnyRpc,
)
from impervious.model import NodeInfo, NodeState, NodeStatus
from impervious.pb.lnrpc import GetInfoRequest, WalletState
from impervious.wire.keysend import FEATURE_BIT

ANSWER_S: Final = 20.0
"""How long LND may take to say who it is; it answers in milliseconds unless its disk or its chain backend hangs."""

READY: Final = NodeStatus(state=NodeState.READY, reason="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What an LND must have to be ready."""

    rpcs: Sequence[AnyRpc] = (GET_INFO,)
    """What the macaroon must allow."""
    useful: Sequence[AnyRpc] = ()
    """What it works better with: a macaroon without them is good enough, and the command that bakes one names them."""
    keysend: bool = False
    """Whether it must accept keysends (feature bit 55)."""
    lowest_version: tuple[int, int] = (0, 0)
    """Major and minor number. One that does not say which it is, is not refused for it."""


LOWEST_VERSION: Final = (0, 18)
"""The oldest that this program is tested with. What comes with 0.21 only (record 106823 in forwarded payments) is not
needed."""

NOTHING: Final = Requirements()
"""It answers, it is the right node, and its chain is in sync."""

PAYMENT_NODE: Final = Requirements(
    rpcs=(
        GET_INFO,
        GET_NODE_INFO,
        QUERY_ROUTES,
        LOOKUP_INVOICE,
        LIST_INVOICES,
        SUBSCRIBE_INVOICES,
        SIGN_MESSAGE,
        VERIFY_MESSAGE,
        CHECK_MACAROON,
        SEND_PAYMENT,
        TRACK_PAYMENT,
    ),
    useful=(LIST_CHANNELS, SUBSCRIBE_CHANNELS, SEND_TO_ROUTE),
    keysend=True,
    lowest_version=LOWEST_VERSION,
)
"""All that `node.PaymentNode` needs. An LND without keysend is refused: it could send, but nothing could reach it."""

LIGHTNING_NODE: Final = Requirements(
    rpcs=(
        *PAYMENT_NODE.rpcs,
        ADD_INVOICE,
        DECODE_PAY_REQ,
        LIST_PAYMENTS,
        CHANNEL_BALANCE,
        WALLET_BALANCE,
    ),
    useful=PAYMENT_NODE.useful,
    keysend=True,
    lowest_version=LOWEST_VERSION,
)
"""All that `node.LightningNode` needs: invoices and balances, too."""

_WALLET: Final = {
    WalletState.WAITING_TO_START: NodeStatus(
        state=NodeState.STARTING, reason="LND waits to start: another LND of its cluster may be the leader"
    ),
    WalletState.NON_EXISTING: NodeStatus(state=NodeState.LOCKED, reason="LND has no wallet yet: run lncli create"),
    WalletState.LOCKED: NodeStatus(
        state=NodeState.LOCKED,
        reason="LND's wallet is locked: run lncli unlock (or let LND do it: wallet-unlock-password-file in lnd.conf)",
    ),
    WalletState.UNLOCKED: NodeStatus(state=NodeState.STARTING, reason="LND is starting: its wallet is being opened"),
}
_STARTING: Final = NodeStatus(
    state=NodeState.STARTING, reason="LND is starting: it catches up with its chain before it serves"
)
_NO_SERVER_ACTIVE: Final = (0, 14)
"""LND before this version never says SERVER_ACTIVE; RPC_ACTIVE is all."""


class Examiner:
    """Judges the LND at the end of one connection."""

    def __init__(self, connection: Connection, requirements: Requirements) -> None:
        self._connection = connection
        self._requirements = requirements
        self._allowed = False

    def forget_permissions(self) -> None:
        """Ask again what the macaroon allows: it may have expired, or been revoked."""
        self._allowed = False

    async def judge(self, wallet: WalletState) -> tuple[NodeStatus, NodeInfo | None]:
        """Say how far it is, and who it is once that is known.

        Args:
          wallet: its latest state.
        """
        if wallet in _WALLET:
            return _WALLET[wallet], None
        if wallet not in (WalletState.RPC_ACTIVE, WalletState.SERVER_ACTIVE):
            reason = f"LND is in a state that this version does not know ({int(wallet)})"
            return NodeStatus(state=NodeState.STARTING, reason=reason), None
        try:
            with trio.move_on_after(ANSWER_S):
                return await self._examine(wallet)
        except (MacaroonRefused, LndRefused) as error:
            return NodeStatus(state=NodeState.REFUSING, reason=str(error)), None
        except NodeUnavailable as error:
            return NodeStatus(state=NodeState.AWAY, reason=str(error)), None
        reason = f"LND is connected but did not say who it is within {ANSWER_S:g} s: look into its log"
        return NodeStatus(state=NodeState.AWAY, reason=reason), None

    async def _info(self) -> NodeInfo:
        host = self._connection.credentials.host
        return convert.info(await call(self._connection.calls, GET_INFO, GetInfoRequest(), host=host))

    async def _examine(self, wallet: WalletState) -> tuple[NodeStatus, NodeInfo | None]:
        lacking = await self._lacking()
        if GET_INFO in lacking:  # it would not tell who it is
            return NodeStatus(state=NodeState.REFUSING, reason=self._bake(lacking)), None
        info = await self._info()
        if mistake := self._identity(info):
            return NodeStatus(state=NodeState.MISTAKEN, reason=mistake), info
        problems = [self._old(info), self._bake(lacking), self._keysend(info)]
        if reason := "; ".join(problem for problem in problems if problem):
            return NodeStatus(state=NodeState.REFUSING, reason=reason), info
        return self._progress(wallet, info), info

    def _progress(self, wallet: WalletState, info: NodeInfo) -> NodeStatus:
        if wallet is WalletState.RPC_ACTIVE and version(info.version) >= _NO_SERVER_ACTIVE:
            return _STARTING
        if not info.synced_to_chain:
            reason = f"LND's chain is behind, at block {info.block_height}: wait, and see that its chain backend runs"
            return NodeStatus(state=NodeState.SYNCING, reason=reason + _old_block(info.chain_time_s, time.time()))
        return READY

    def _identity(self, info: NodeInfo) -> str:
        expected = self._connection.credentials.pubkey
        if expected is None or expected == info.pubkey:
            return ""
        return (
            f"LND at {self._connection.credentials.address} is node {info.pubkey}, but the configuration says"
            f" {expected}: correct lightning.lnd_node.pub_key, or connect to the other LND"
        )

    def _old(self, info: NodeInfo) -> str:
        lowest, found = self._requirements.lowest_version, _numbers(info.version)
        if found is None or found >= lowest:
            return ""
        return (
            f"LND is version {info.version}, and {lowest[0]}.{lowest[1]} is the lowest that this daemon works with:"
            " update LND"
        )

    async def _lacking(self) -> Sequence[AnyRpc]:
        data = self._connection.credentials.macaroon
        if self._allowed or data is None:
            return ()
        lacking = await missing(self._connection.calls, data, self._requirements.rpcs)
        self._allowed = not lacking
        return lacking

    def _bake(self, lacking: Sequence[AnyRpc]) -> str:
        if not lacking:
            return ""
        names = ", ".join(rpc.name for rpc in lacking)
        command = bake_command([*self._requirements.rpcs, *self._requirements.useful])
        return (
            f"the macaroon does not allow {names}: bake one that does with"
            f" `{command}` and set lightning.lnd_node.admin_macaroon to it"
        )

    def _keysend(self, info: NodeInfo) -> str:
        if not self._requirements.keysend or FEATURE_BIT in info.features:
            return ""
        return (
            "LND does not accept keysends, so no message can reach this node: put accept-keysend=true into lnd.conf"
            " (or start lnd with --accept-keysend) and restart it"
        )


def _old_block(chain_time_s: int, now_s: float) -> str:
    """Say how old the newest block is, if that may be the clock's fault: LND counts on its machine's, too."""
    days = int(now_s - chain_time_s) // 86_400
    if not chain_time_s or -1 <= days < 1:
        return ""
    if days < 0:
        return f"; its newest block is of {-days} days from now: set the clock of this machine"
    return f"; its newest block is {days} days old: if it is none of the chain's newest, see that the clock is right"


def version(text: str) -> tuple[int, int]:
    """Read major and minor number of what LND calls itself, such as "0.21.2-beta commit=v0.21.2-beta"."""
    return _numbers(text) or _NO_SERVER_ACTIVE  # an LND built without a version is a recent one


def _numbers(text: str) -> tuple[int, int] | None:
    """Read them; None: it does not say. What comes behind them (-beta, .rc1, somebody's own words) is of no matter."""
    found = re.match(r"\s*v?(\d{1,9})\.(\d{1,9})", text)
    numbers = (int(found[1]), int(found[2])) if found else (0, 0)
    return numbers if any(numbers) else None
