"""`impervious run`: the daemon, which is also what `impervious` does without a verb.

It runs until SIGTERM or SIGINT, then stops in order within 5 s; a second signal ends it at once, which costs nothing
that was accepted: the next start finds it in the database.
"""

import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Final

import trio

from impervious import logs
from impervious.background import background
from impervious.cli.exits import OK
from impervious.cli.stopping import stopped_by_signals, told
from impervious.config_file import Found, read_config
from impervious.supervisor import Node, open_node

logger = logging.getLogger(__name__)

NODE_S: Final = 0.7
"""How long the start waits for an LND that is there; one that is away is waited for while the daemon runs."""


def add_parser(parser: ArgumentParser) -> None:
    """Declare the arguments: it has none but --config."""
    parser.epilog = (
        "The configuration is looked for at config/local.config.yml and config/config.yml when --config is not given; "
        "`impervious init` writes a first one. Log lines go to stderr. SIGTERM and SIGINT stop it."
    )


def run(args: Namespace) -> int:
    """Run the daemon, and return the exit code once it was asked to stop."""
    found = read_config(args.config)
    logs.configure(found.config.log, sys.stderr, environ=os.environ, secrets=found.secrets)
    for warning in found.warnings:
        logger.warning("%s", warning)
    trio.run(_serve, found)
    return OK


async def _serve(found: Found) -> None:
    async with (
        stopped_by_signals() as closing,
        open_node(found.config, doors=True) as node,
        background(partial(_tell_key, node)),
    ):
        with closing.wait(NODE_S):  # so that what waits for the line below can call at once
            await node.wait_ready()
        _tell(node)
        await told(closing)
    logger.info("stopped")


def _tell(node: Node) -> None:
    where = node.addresses
    doors = {"grpc": str(where.grpc), "http": str(where.http)} if where else {}
    if where and where.http_text:
        doors["http_text"] = str(where.http_text)
    logger.info("IMPD started!", extra=doors)


async def _tell_key(node: Node) -> None:
    info = await node.wait_ready()
    if node.config.lightning.lnd.pubkey is None:
        logger.warning(
            "lightning.lnd_node.pub_key is not set, so any LND is taken: this one is %s; put that key there",
            info.pubkey,
        )
