import inspect
from argparse import ArgumentParser
from itertools import groupby

import pytest

from impervious.cli.registry import VERBS, Verb, find


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_row_has_its_module(verb: Verb) -> None:
    assert find(verb.name) is verb
    module = verb.load()
    parser = ArgumentParser()
    module.add_parser(parser)
    assert parser.format_help()
    assert list(inspect.signature(module.run).parameters) == ["args"]


def test_the_table_is_in_the_order_of_the_help() -> None:
    groups = [group for group, _ in groupby(verb.group for verb in VERBS)]
    assert len(groups) == len(set(groups))
    assert len({verb.name for verb in VERBS}) == len(VERBS)
    assert all(verb.meaning[0].islower() and not verb.meaning.endswith(".") for verb in VERBS)
