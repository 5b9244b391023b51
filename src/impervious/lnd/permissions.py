"""Which RPCs a macaroon does not allow, and the command that bakes one which does.

LND is asked with CheckMacaroonPermissions, which sees caveats and revocations too. A macaroon that may not ask that is
read instead (`macaroon.permissions`).
"""

import logging
from collections.abc import Sequence
from typing import Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from impervious.errors import Malformed
from impervious.lnd import macaroon
from impervious.lnd.rpcs import CHECK_MACAROON, AnyRpc
from impervious.pb.lnrpc import CheckMacPermRequest, MacaroonPermission
from impervious.rpc import Channel

logger = logging.getLogger(__name__)

_URI: Final = "uri"
"""lnd macaroons/service.go, PermissionEntityCustomURI: the action is a method's path."""


async def missing(channel: Channel, data: bytes, rpcs: Sequence[AnyRpc]) -> Sequence[AnyRpc]:
    """Return those of `rpcs` that a macaroon does not allow.

    Args:
      channel: to an LND that serves RPCs.
      data: the macaroon.
      rpcs: what is needed.
    """
    verdicts: dict[str, bool | None] = {}

    async def ask(rpc: AnyRpc) -> None:
        verdicts[rpc.path] = await _allows(channel, data, rpc)

    async with trio.open_nursery() as nursery:
        for rpc in rpcs:
            nursery.start_soon(ask, rpc)
    if None in verdicts.values():
        return _unlisted(data, rpcs)
    return [rpc for rpc in rpcs if not verdicts[rpc.path]]


def bake_command(rpcs: Sequence[AnyRpc]) -> str:
    """Return the shell command that makes a macaroon for exactly `rpcs`."""
    return " ".join(["lncli bakemacaroon --save_to=impervious.macaroon", *(rpc.uri for rpc in rpcs)])


async def _allows(channel: Channel, data: bytes, rpc: AnyRpc) -> bool | None:
    """Ask LND; None: it does not say."""
    assert rpc.permission is not None, "an RPC without a permission is not worth a question"
    entity, action = rpc.permission
    # Not check_default_perms_from_full_method: LND before 0.20 does not know it, and would find that nothing is asked.
    request = CheckMacPermRequest(
        macaroon=data, permissions=[MacaroonPermission(entity=entity, action=action)], full_method=rpc.path
    )
    try:
        answer = await channel.unary_unary(CHECK_MACAROON.path, request, CHECK_MACAROON.response)
    except GRPCError as error:
        return False if error.status is Status.INVALID_ARGUMENT else None
    return answer.valid


def _unlisted(data: bytes, rpcs: Sequence[AnyRpc]) -> Sequence[AnyRpc]:
    try:
        granted = macaroon.permissions(data)
    except Malformed:
        logger.warning("LND: the macaroon's permissions cannot be checked: give it macaroon:read")
        return []
    return [rpc for rpc in rpcs if rpc.permission not in granted and (_URI, rpc.path) not in granted]
