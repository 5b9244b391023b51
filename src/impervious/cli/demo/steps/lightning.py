"""Invoices: one node asks for money, the other pays, and both can tell that it is done."""

import hashlib
import json
from typing import Final

from impervious.cli.demo.facts import Done
from impervious.cli.demo.inbox import Arrival
from impervious.cli.demo.stage import DemoFailed, Stage

AMOUNT_SAT: Final = 21
MEMO: Final = "one coffee"


async def invoice(stage: Stage) -> None:
    """Carol asks for sats, alice pays them; carol's stream tells it, and both look it up."""
    alice, carol = stage.alice, stage.carol
    made = await carol.post("/v1/lightning/generateinvoice", {"amount": AMOUNT_SAT, "memo": MEMO})
    stage.tell(Done(at=carol.name, did="asks", text=f"{AMOUNT_SAT} sat for {MEMO}: {made['invoice']}"))
    if (await carol.post("/v1/lightning/checkinvoice", dict(made)))["paid"]:
        raise DemoFailed("carol takes an invoice for paid that nobody has paid")
    paid = await alice.post("/v1/lightning/payinvoice", dict(made))
    preimage = str(paid["preimage"])
    stage.tell(Done(at=alice.name, did="pays", text=f"and has the proof: {preimage}"))
    payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
    arrived = await carol.inbox.wait_for(lambda arrival: _tells_of(arrival, payment_hash))
    if arrived.amount_sat != AMOUNT_SAT:
        raise DemoFailed(f"carol was told of {arrived.amount_sat} sat instead of {AMOUNT_SAT}")
    for host in (carol, alice):
        if not (await host.post("/v1/lightning/checkinvoice", dict(made)))["paid"]:
            raise DemoFailed(f"{host.name} does not take the invoice for paid")
        stage.tell(Done(at=host.name, did="checks", text="it is paid"))
    if await alice.post("/v1/lightning/payinvoice", dict(made)) != paid:
        raise DemoFailed("alice did not find out that she had paid already")


def _tells_of(arrival: Arrival, payment_hash: str) -> bool:
    return arrival.service == "lightning" and json.loads(arrival.data)["paymentHash"] == payment_hash
