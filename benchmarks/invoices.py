"""CheckInvoice with few and with many invoices, beside looking through the list for one.

One node of a simulated network, asked over LND's own wire, with a daemon on it. What is compared is how the time grows
with the number of invoices, not what a simulated node takes for one.
"""

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from impervious.config import Config, LndConfig, StoreConfig
from impervious.lnd import LIGHTNING_NODE, open_lnd
from impervious.model import InvoiceState, PaymentHash
from impervious.node import LightningNode
from impervious.services.lightning import LightningService
from impervious.sim import SimNetwork
from impervious.sim.face import ServedLnd, open_lnds
from impervious.supervisor import open_node
from impervious.units import Msat, Sat

from .options import Options, print_table

NUMBERS: Final = (10, 300, 3000)
"""Invoices that there are."""
PAGE: Final = 100
SETTLING_S: Final = 5.0
"""The daemon reads what is new; that is not what is measured."""
LISTED: Final = 3
"""How often the list is looked through: it takes seconds."""


def run(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_measure, Path(folder), options)


async def _measure(folder: Path, options: Options) -> None:
    network = SimNetwork.line("alice", "bob")
    config = replace(Config(), store=StoreConfig(path=folder / "imp.db"))
    rows: list[list[str]] = []
    async with network.open(), open_lnds(network, folder) as lnds:
        async with open_lnd(_config(lnds["alice"]), requires=LIGHTNING_NODE) as lnd:
            async with open_node(config, lightning=lnd) as node:
                await node.wait_ready()
                service = node.service(LightningService)
                first = await service.generate(Sat(1), "the one that is looked for")
                there = 1
                for number in NUMBERS:
                    for _ in range(number - there):
                        network.lnd("alice").add_invoice(Msat(1000))
                    there = number
                    await trio.sleep(SETTLING_S)
                    # One after the other: what follows a long list pays for its garbage.
                    checked = [await _ms(lambda: service.check(first.payment_request)) for _ in range(options.rounds)]
                    listed = [await _ms(lambda: _by_listing(lnd, first.payment_hash)) for _ in range(LISTED)]
                    check, through = statistics.median(checked), statistics.median(listed)
                    rows.append([f"{number:,} invoices", f"{check:.2f}", f"{through:.2f}"])
    note = f"medians of {options.rounds} and {LISTED}"
    print_table(f"Is the oldest invoice paid? ms ({note})", ["", "CheckInvoice", "through the list"], rows)


def _config(lnd: ServedLnd) -> LndConfig:
    files = lnd.credentials
    return LndConfig(host=lnd.host, port=lnd.port, tls_cert=files.certificate, macaroon=files.macaroon)


async def _by_listing(lnd: LightningNode, payment_hash: PaymentHash) -> bool:
    """Look for an invoice from the newest one back, as a program does that has the list only."""
    offset = 0
    while True:
        page = await lnd.list_invoices(index_offset=offset, limit=PAGE, backwards=True)
        for invoice in reversed(page.invoices):
            if invoice.payment_hash == payment_hash:
                return invoice.state is InvoiceState.SETTLED
        offset = page.first_index


async def _ms(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e3
