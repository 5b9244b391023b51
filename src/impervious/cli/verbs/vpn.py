"""`impervious vpn`: what an operator does about tunnels, sold and bought."""

import json
import os
import sys
import time
from argparse import SUPPRESS, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import trio

from impervious.cli.client.door import Door, add_door_arguments, find_door
from impervious.cli.client.rest import Facts, number, open_rest, text
from impervious.cli.exits import OK, USAGE, UsageError
from impervious.cli.tunnels.asking import ask, open_asking
from impervious.cli.tunnels.buying import Tunnel, Wish, buy, renew
from impervious.cli.tunnels.files import FOLDER, tunnel_path, wg_quick, write_tunnel
from impervious.config_file import Found, read_config
from impervious.model import ServiceType
from impervious.wireguard.check import Finding, bad, check

_SERVICE: Final = ServiceType("vpn")
_SETTING: Final = "vpn:"
"""How a cure begins that belongs into the configuration file; the others are commands."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    looking = _add(
        actions,
        "check",
        "say whether this machine can sell tunnels, and give the command for whatever it lacks",
        "Look at the WireGuard interface, forwarding and the firewall, changing nothing. "
        "Only root can see everything. Exit code 2: something must be put right before anything is sold.",
        calls=False,
    )
    looking.set_defaults(act=_check)
    _add_buying(actions)
    _add_contracts(actions)


def _add_buying(actions: "_SubParsersAction[ArgumentParser]") -> None:
    buying = _add(
        actions,
        "buy",
        "buy time on another node's VPN",
        "Ask the price, pay it, and write the tunnel's file, which only its owner can read. On a terminal its QR code "
        "is shown, and without --max-price the price has to be agreed to.",
    )
    buying.add_argument("pubkey", metavar="PUBKEY", help="the seller's key, 66 hex digits, or @ and a peer's imp id")
    buying.add_argument("--hours", type=int, default=1, metavar="N", help="how many of the seller's hours (1)")
    _add_limit(buying)
    buying.add_argument("--up", action="store_true", help="bring the tunnel up with wg-quick, as root")
    buying.add_argument("--auto-renew", action="store_true", help="let it buy more time whenever it ends")
    buying.add_argument("--budget", type=int, default=0, metavar="SAT", help="the most that --auto-renew may cost")
    _add_folder(buying)
    buying.set_defaults(act=_buy)
    renewing = _add(actions, "renew", "buy a tunnel's own hours again; nothing else about it changes")
    _add_nonce(renewing)
    _add_limit(renewing)
    renewing.add_argument("--auto-renew", action="store_true", help="from now on let it renew itself; pays nothing now")
    renewing.add_argument("--budget", type=int, default=0, metavar="SAT", help="the most that may cost; 0 stops it")
    renewing.set_defaults(act=_renew)
    downing = _add(actions, "down", "take a tunnel down with wg-quick, as root; its time goes on")
    _add_nonce(downing)
    _add_folder(downing)
    downing.set_defaults(act=_down)


def _add_contracts(actions: "_SubParsersAction[ArgumentParser]") -> None:
    listing = _add(actions, "list", "show the tunnels that were bought and sold")
    listing.set_defaults(act=_list)
    showing = _add(actions, "config", "print a tunnel's file: whoever has it has the tunnel")
    _add_nonce(showing)
    showing.add_argument("--qr", action="store_true", help="draw it, for the camera of a WireGuard app")
    showing.add_argument("--svg", action="store_true", help="draw it as an SVG document")
    showing.set_defaults(act=_config)
    ending = _add(actions, "cancel", "end a tunnel that was sold, and give back what its rest is worth")
    _add_nonce(ending)
    ending.add_argument("--reason", default="", metavar="TEXT", help="what the buyer is told")
    ending.set_defaults(act=_cancel)


def _add(
    actions: "_SubParsersAction[ArgumentParser]", name: str, meaning: str, more: str = "", *, calls: bool = True
) -> ArgumentParser:
    parser = actions.add_parser(name, help=meaning, description=more or f"{meaning.capitalize()}.", allow_abbrev=False)
    # Where one writes it last, too; without a default, which would win over what stands before the action.
    parser.add_argument("--config", "-config", metavar="PATH", default=SUPPRESS, help="the configuration file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if calls:
        add_door_arguments(parser)
    return parser


def _add_nonce(parser: ArgumentParser) -> None:
    parser.add_argument("nonce", metavar="NONCE", help="the tunnel's name, which `impervious vpn list` shows")


def _add_limit(parser: ArgumentParser) -> None:
    parser.add_argument("--max-price", type=int, metavar="SAT", help="the most to pay")


def _add_folder(parser: ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=FOLDER, metavar="PATH", help=f"where the file is ({FOLDER})")


def run(args: Namespace) -> int:
    """Do it, and return the exit code."""
    act: Callable[[Namespace], int] = args.act
    return act(args)


# --- Buying -----------------------------------------------------------------------------------------------------------


def _buy(args: Namespace) -> int:
    if args.max_price is None and not sys.stdin.isatty():
        raise UsageError("say with --max-price how much it may cost: nobody can be asked here")
    if args.auto_renew != (args.budget > 0):
        raise UsageError("--auto-renew and --budget SAT belong together")
    wish = Wish(seller=args.pubkey, hours=args.hours, most=args.max_price, renewals=args.budget)
    tunnel = trio.run(_bought, find_door(args), wish)
    path = write_tunnel(args.dir, tunnel.interface, tunnel.config)
    if args.json:
        print(json.dumps({**tunnel.public(), "file": str(path)}))
    else:
        _show_bought(tunnel, path)
    if args.up:
        wg_quick("up", path)
    return OK


async def _bought(door: Door, wish: Wish) -> Tunnel:
    async with open_asking(door) as asking:
        return await buy(asking, wish, agree=_agree)


async def _agree(price: int, hours: int) -> bool:
    ask_person = partial(input, f"Pay {price} sat for {hours} hours? [y/N] ")
    return (await trio.to_thread.run_sync(ask_person, abandon_on_cancel=True)).strip().lower() in ("y", "yes")


def _show_bought(tunnel: Tunnel, path: Path) -> None:
    if sys.stdout.isatty():
        print(_drawn(tunnel.config))
    print(f"{tunnel.nonce}: {tunnel.address} until {_moment(tunnel.expires_at)}, for {tunnel.price} sat")
    print(f"{path}: bring it up with `sudo wg-quick up {path}`")


def _renew(args: Namespace) -> int:
    if args.auto_renew:
        trio.run(_let_renew, find_door(args), args.nonce, args.budget)
        said = f"renews itself for {args.budget} sat at most" if args.budget else "renews itself no more"
        print(json.dumps({"nonce": args.nonce, "budget": args.budget}) if args.json else f"{args.nonce}: {said}")
        return OK
    expires_at = trio.run(_renewed, find_door(args), args.nonce, args.max_price)
    facts = {"nonce": args.nonce, "expiresAt": expires_at}
    print(json.dumps(facts) if args.json else f"{args.nonce}: until {_moment(expires_at)}")
    return OK


async def _renewed(door: Door, nonce: str, most: int | None) -> int:
    async with open_asking(door) as asking:
        return await renew(asking, nonce, most=most)


async def _let_renew(door: Door, nonce: str, budget: int) -> None:
    async with open_rest(door) as rest:
        contract = await ask(rest, "get", {"nonce": nonce})
        await ask(rest, "renew", {"pubkey": text(contract, "pubkey"), "nonce": nonce, "budget": str(budget)})


def _down(args: Namespace) -> int:
    interface = text(_asked(args, "config", {"nonce": args.nonce}), "interface")
    wg_quick("down", tunnel_path(args.dir, interface))
    return OK


# --- Contracts --------------------------------------------------------------------------------------------------------


def _list(args: Namespace) -> int:
    facts = _asked(args, "contracts", None)
    contracts = facts.get("contracts")
    assert isinstance(contracts, list)
    if args.json:
        print(json.dumps(facts))
    elif not contracts:
        print("no tunnels were bought or sold")
    else:
        print("\n".join(map(_line, contracts)))
    return OK


def _line(contract: Facts) -> str:
    until = _moment(number(contract, "expiresAt")) if number(contract, "expiresAt") else "-"
    role = "sold to" if contract["role"] == "seller" else "bought from"
    cost = f"{number(contract, 'price')} sat for {number(contract, 'hours')} h"
    traffic = f"{_size(number(contract, 'receivedBytes'))} in, {_size(number(contract, 'sentBytes'))} out"
    more = [traffic] if contract["role"] == "seller" else []
    more += [text(contract, "reason")] if contract["reason"] else []
    first = f"{text(contract, 'nonce')}  {text(contract, 'state'):10} {role} {text(contract, 'pubkey')[:12]}…"
    return "  ".join((first, text(contract, "address") or "-", f"until {until}", cost, *more))


def _config(args: Namespace) -> int:
    facts = _asked(args, "config", {"nonce": args.nonce})
    if args.qr or args.svg:
        print(_drawn(text(facts, "config"), svg=args.svg))
    elif args.json:
        print(json.dumps(facts))
    else:
        print(text(facts, "config"), end="")
    return OK


def _drawn(config: str, *, svg: bool = False) -> str:
    from impervious.wireguard.qr import svg_qr, terminal_qr  # for the few who want a picture

    return svg_qr(config) if svg else terminal_qr(config, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def _cancel(args: Namespace) -> int:
    facts = _asked(args, "cancel", {"nonce": args.nonce, "reason": args.reason})
    print(json.dumps(facts) if args.json else f"ended; {number(facts, 'refunded')} sat go back")
    return OK


def _asked(args: Namespace, path: str, body: dict[str, str] | None) -> Facts:
    async def call(door: Door) -> Facts:
        async with open_rest(door) as rest:
            return await ask(rest, path, body)

    return trio.run(call, find_door(args))


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} B"


# --- Selling ----------------------------------------------------------------------------------------------------------


def _check(args: Namespace) -> int:
    found = read_config(args.config, needs_lnd=False)
    findings = [*_switched_off(found), *trio.run(partial(check, found.config.vpn))]
    wrong = sum(finding.is_bad for finding in findings)
    if args.json:
        rows = [{**asdict(finding), "state": finding.state.value} for finding in findings]
        print(json.dumps({"ok": not wrong, "file": str(found.path), "findings": rows}))
    else:
        print("\n".join((*_lines(findings, found.path), _verdict(findings, wrong))))
    return USAGE if wrong else OK


def _switched_off(found: Found) -> Iterator[Finding]:
    if not found.config.service(_SERVICE).active:
        says = "the vpn service is switched off in service_list: nothing is sold; set its `active` to true"
        yield bad("service", says)


def _lines(findings: Iterable[Finding], path: Path) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.state.value:8} {finding.name}: {finding.says}"
        if finding.fix:
            where = f"in {path}:" if finding.fix.startswith(_SETTING) else "run:"
            yield f"{'':8} {where} {finding.fix}"


def _verdict(findings: Iterable[Finding], wrong: int) -> str:
    unseen = sum(finding.is_unknown for finding in findings)
    hint = "; root sees more" if os.geteuid() else ""
    unsure = f" ({unseen} could not be judged{hint})" if unseen else ""
    if wrong:
        return f"\nThis machine cannot sell yet: {wrong} wrong, to be put right from the top; then check again{unsure}."
    return f"\nThis machine can sell{unsure}."
