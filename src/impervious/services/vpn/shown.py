"""What streams show of a seller's answer: its facts, and secrets only where they are asked for."""

import json
from shlex import quote
from typing import Final

from impervious.model import Shown
from impervious.services.vpn.outgoing import shape
from impervious.services.vpn.payloads import Contract, Payload, write
from impervious.services.vpn.purchase import Bought
from impervious.services.vpn.told import Role, Told

_PRESHARED: Final = "preshared_key"


def shown_answer(payload: Payload, contract: Bought | None, told: Told | None) -> Shown:
    """Give the event of an answer.

    Args:
      payload: what came.
      contract: what it is about, as it stands now; None: a quote.
      told: what the buyer concluded, where there is something to say beyond the answer.
    """
    facts = {"role": Role.BUYER.value, **json.loads(write(payload))}
    if told is not None:
        facts = {**facts, **shape(told)}
    if not isinstance(payload, Contract):
        return Shown(data=_dumped(facts))
    secret = {_PRESHARED: facts.pop(_PRESHARED)}
    if contract is None or contract.config is None:
        return Shown(data=_dumped(facts))
    # The seller chose the nonce, and people paste commands.
    public = {**facts, "command": f"impervious vpn config {quote(contract.nonce)}"}
    return Shown(data=_dumped(public), secret=_dumped({**facts, **secret, "config": contract.config.text()}))


def _dumped(facts: dict[str, object]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode()
