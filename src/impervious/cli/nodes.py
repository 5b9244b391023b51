"""Nodes as they are named on the command line: by their key, or by the name of a peer, which the daemon knows."""

from impervious.cli.exits import UsageError
from impervious.errors import InvalidArgument
from impervious.model import NodePubkey


def node_named(text: str, argument: str) -> str:
    """Check a node's name as far as can be done without the daemon.

    Args:
      text: 66 hex digits, or @ and a peer's imp id.
      argument: where it stands.

    Raises:
      UsageError: it is neither.
    """
    if text.startswith("@") and len(text) > 1:
        return text
    try:
        return NodePubkey.parse(text).hex
    except InvalidArgument as error:
        raise UsageError(f"{argument}: {error}") from None
