"""What `impervious --help` says."""

from collections.abc import Iterator, Sequence

from impervious.cli.registry import Verb

_HEAD = """\
usage: impervious [--config PATH] [VERB] [...]

An application bus over Lightning: messages and services between nodes, paid in satoshis.
Without a verb it runs the daemon."""

_TAIL = """\
Options:
  --config PATH   the configuration file; otherwise config/local.config.yml, else config/config.yml
  --version       print the version
  -h, --help      print this; `impervious VERB --help` explains a verb

Every setting can also come from the environment, IMPERVIOUS_SECTION__KEY, which wins over the file.
Exit codes: 0 ok, 1 crash, 2 configuration or usage, 3 LND unreachable or refusing."""


def overview(verbs: Sequence[Verb]) -> str:
    """Write the help of the whole command, verbs by group, with examples."""
    return "\n".join([_HEAD, "", *_groups(verbs), *_examples(verbs), _TAIL]) + "\n"


def _groups(verbs: Sequence[Verb]) -> Iterator[str]:
    width = max(len(verb.name) for verb in verbs)
    for group in dict.fromkeys(verb.group for verb in verbs):
        yield f"{group}:"
        yield from (f"  {verb.name:{width}}  {verb.meaning}" for verb in verbs if verb.group == group)
        yield ""


def _examples(verbs: Sequence[Verb]) -> Iterator[str]:
    yield "Examples:"
    yield from (f"  {example}" for verb in verbs for example in verb.examples)
    yield ""
