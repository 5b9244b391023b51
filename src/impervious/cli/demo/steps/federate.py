"""Federation: two nodes learn each other's names, and names then do for keys."""

from impervious.cli.demo.facts import Done
from impervious.cli.demo.stage import DemoFailed, Stage
from impervious.cli.demo.steps.message import deliver


async def federate(stage: Stage) -> None:
    """Alice asks carol to federate, and then writes to her by name."""
    alice, carol = stage.alice, stage.carol
    asked = str((await alice.post("/v1/federate/request", {"pubkey": carol.pubkey}))["id"])
    stage.tell(Done(at=alice.name, did="asks", text="carol to federate"))
    await alice.inbox.wait_for(lambda arrival: (arrival.service, arrival.reply_to) == ("federate", asked))
    for host, other in ((alice, carol), (carol, alice)):
        peer = await host.post("/v1/federate/peer", {"pubkey": f"@{other.name}"})
        if peer["pubkey"] != other.pubkey:
            raise DemoFailed(f"{host.name} does not know {other.name} by name: {dict(peer)}")
        stage.tell(Done(at=host.name, did="knows", text=f"@{other.name}, who is {other.pubkey}"))
    await deliver(stage, alice, carol, "Carol, I need no key of yours now.", to="@carol")
