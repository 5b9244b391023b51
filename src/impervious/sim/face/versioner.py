"""verrpc.Versioner: what a simulated LND says it is."""

from collections.abc import Mapping

from grpclib.const import Handler

from impervious.pb import simnet
from impervious.sim.face.answering import unary
from impervious.sim.rpcs import COMMIT, COMMIT_HASH, RELEASE, Rpcs

_TAGS = ("autopilotrpc", "chainrpc", "invoicesrpc", "neutrinorpc", "peersrpc", "routerrpc", "signrpc", "walletrpc")


class Versioner:
    """verrpc.Versioner."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._rpcs = rpcs

    def __mapping__(self) -> Mapping[str, Handler]:
        return {"/verrpc.Versioner/GetVersion": unary(self._version, simnet.VersionRequest, simnet.Version)}

    async def _version(self, message: simnet.VersionRequest) -> simnet.Version:
        await self._rpcs.get_info()  # refused as every call is while the wallet is not open
        major, minor, patch = RELEASE.partition("-")[0].split(".")
        return simnet.Version(
            commit=COMMIT,
            commit_hash=COMMIT_HASH,
            version=f"{RELEASE} commit={COMMIT}",
            app_major=int(major),
            app_minor=int(minor),
            app_patch=int(patch),
            app_pre_release=RELEASE.partition("-")[2],
            build_tags=list(_TAGS),
            go_version="go1.0",
        )
