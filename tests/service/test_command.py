import pytest
from tests.service.toys import EchoService

from impervious.service import command
from impervious.service.command import commands_of


def test_commands_are_found_by_their_marks() -> None:
    assert [each.name for each in commands_of(EchoService.__new__(EchoService))] == ["heard", "say"]


@pytest.mark.parametrize("name", ["", "Put", "put it", "a/b", "_put", "x" * 65])
def test_a_name_that_cannot_be_part_of_a_route_is_refused(name: str) -> None:
    async def put() -> None: ...

    with pytest.raises(TypeError, match="small letters"):
        command(name)(put)


def test_only_coroutines_are_commands() -> None:
    with pytest.raises(TypeError, match="async def"):
        command("put")(lambda: None)


def test_two_commands_of_one_name_are_refused() -> None:
    class Twice:
        @command("put")
        async def one(self) -> None: ...

        @command("put")
        async def other(self) -> None: ...

    with pytest.raises(TypeError, match="two commands called 'put'"):
        commands_of(Twice())
