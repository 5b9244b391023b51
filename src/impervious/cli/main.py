"""argv to a verb.

Two parsers, one after the other: the first knows --config and finds the verb's name, the second is the verb's own.
So only the module of the verb that is called is imported.
"""

import sys
from argparse import REMAINDER, SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from importlib import metadata

from impervious.cli import output
from impervious.cli.exits import CRASH, OK, report
from impervious.cli.help import overview
from impervious.cli.registry import DEFAULT, VERBS, Verb, find


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
      argv: the arguments after the program's name; the process's own when absent.

    Raises:
      SystemExit: help was asked for (0), or the arguments are wrong (2); argparse has said why.
    """
    output.prepare()
    try:
        args = _Overview().parse_args(sys.argv[1:] if argv is None else argv)
        code = _print_version() if args.version else _run(find(args.verb or DEFAULT), args)
        output.flush()  # here, where a failure can be caught
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as error:
        problem = output.problem(error)
        if problem is None:
            return report(error)
        output.discard()
        if problem:
            print(f"impervious: {problem}", file=sys.stderr)
        return CRASH
    return code


def _print_version() -> int:
    print(f"impervious {metadata.version('impervious')}")
    return OK


def _run(verb: Verb, args: Namespace) -> int:
    module = verb.load()
    description = f"{verb.meaning[0].upper()}{verb.meaning[1:]}."
    parser = ArgumentParser(prog=f"impervious {verb.name}", description=description, allow_abbrev=False)
    _add_config(parser)
    module.add_parser(parser)
    return module.run(parser.parse_args(args.rest, namespace=args))


def _add_config(parser: ArgumentParser) -> None:
    # Before the verb or after it; -config is how the original daemon spelt it.
    parser.add_argument("--config", "-config", metavar="PATH", default=SUPPRESS, help="the configuration file")


class _Overview(ArgumentParser):
    def __init__(self) -> None:
        super().__init__(prog="impervious", allow_abbrev=False)
        _add_config(self)
        self.set_defaults(config=None)
        self.add_argument("--version", action="store_true")
        self.add_argument("verb", nargs="?")
        self.add_argument("rest", nargs=REMAINDER)

    def format_help(self) -> str:
        return overview(VERBS)
