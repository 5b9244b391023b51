"""Signatures: made by one node's key, checked at another node."""

from typing import Final

from impervious.cli.demo.facts import Done
from impervious.cli.demo.stage import DemoFailed, Stage

TEXT: Final = "alice was here"


async def sign_and_verify(stage: Stage) -> None:
    """Alice signs a text; carol finds out that it was she."""
    alice, carol = stage.alice, stage.carol
    signature = str((await alice.post("/v1/sign", {"msg": TEXT}))["signature"])
    stage.tell(Done(at=alice.name, did="signs", text=f"{TEXT} -> {signature}"))
    verdict = await carol.post("/v1/verify", {"msg": TEXT, "signature": signature})
    if (verdict["result"], verdict["pubkey"]) != (True, alice.pubkey):
        raise DemoFailed(f"carol does not take alice's signature for hers: {dict(verdict)}")
    stage.tell(Done(at=carol.name, did="verifies", text=f"signed by {verdict['pubkey']}, alice"))
    forged = await carol.post("/v1/verify", {"msg": TEXT + "!", "signature": signature, "pubkey": alice.pubkey})
    if forged["result"]:
        raise DemoFailed("carol takes a changed text for the one that alice has signed")
    stage.tell(Done(at=carol.name, did="verifies", text=f"{TEXT}! was not signed by alice"))
