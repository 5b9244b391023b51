"""Looks at an LND, without a daemon: prints what its channels hold, then every invoice that is made or paid.

    python lnd_client.py 'lndconnect://host:10009?cert=…&macaroon=…'
    python lnd_client.py 127.0.0.1:10009 ~/.lnd/tls.cert ~/.lnd/data/chain/bitcoin/mainnet/readonly.macaroon

`impervious.lnd` by itself is a Trio client for LND: it says at every moment what LND lacks, and connects again when LND
was away. A macaroon that can only read is enough here.
"""

import sys
from pathlib import Path

import trio

from impervious.config import LndConfig
from impervious.errors import ImperviousError, NodeUnavailable
from impervious.lnd import NOTHING, LndNode, open_lnd, rpcs
from impervious.pb.lnrpc import ChannelBalanceRequest, InvoiceInvoiceState, InvoiceSubscription


async def main(config: LndConfig) -> None:
    """Look until interrupted."""
    async with open_lnd(config, requires=NOTHING) as lnd:
        while True:
            if not lnd.status.ready:
                print("waiting:", lnd.status.reason, file=sys.stderr, flush=True)
            info = await lnd.wait_ready()
            print(info.alias, info.pubkey, flush=True)
            try:
                await show_balances(lnd)
                await show_invoices(lnd)
            except NodeUnavailable as error:
                print(error, file=sys.stderr, flush=True)
            await trio.sleep(1)


async def show_balances(lnd: LndNode) -> None:
    """Print what can be sent and received."""
    balance = await lnd.call(rpcs.CHANNEL_BALANCE, ChannelBalanceRequest())
    ours, theirs = balance.local_balance, balance.remote_balance
    print(f"can send {ours.sat if ours else 0} sat, can receive {theirs.sat if theirs else 0} sat", flush=True)


async def show_invoices(lnd: LndNode) -> None:
    """Print invoices as they change; ends when LND shuts down."""
    async with lnd.stream(rpcs.SUBSCRIBE_INVOICES, InvoiceSubscription()) as invoices:
        async for invoice in invoices:
            state = InvoiceInvoiceState(invoice.state).name or "?"
            amount_msat = invoice.amt_paid_msat or invoice.value_msat
            kind = "keysend" if invoice.is_keysend else invoice.memo or "invoice"
            print(f"{state.lower()} {invoice.r_hash.hex()[:16]} {amount_msat} msat, {kind}", flush=True)


def where(arguments: list[str]) -> LndConfig:
    """Read the command line."""
    if len(arguments) == 1:
        return LndConfig(lndconnect=arguments[0])
    address, certificate, macaroon = arguments
    host, _, port = address.rpartition(":")
    return LndConfig(host=host, port=int(port), tls_cert=Path(certificate), macaroon=Path(macaroon))


if __name__ == "__main__":
    try:
        trio.run(main, where(sys.argv[1:]))
    except* ImperviousError as group:
        sys.exit(str(group.exceptions[0]))
    except* KeyboardInterrupt:
        pass
