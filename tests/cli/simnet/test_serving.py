import json
from pathlib import Path

import pytest
from tests.cli.processes import free_base

from impervious.cli.exits import UsageError
from impervious.cli.simnet.serving import OPTIONS_FILE, SimnetOptions, open_simnet
from impervious.errors import ConfigError


async def test_a_folder_remembers_what_it_was_told(tmp_path: Path) -> None:
    base = free_base(40)
    async with open_simnet(SimnetOptions(folder=tmp_path, nodes=("x", "y", "z"), port_base=base)) as simnet:
        keys = {name: lnd.pubkey for name, lnd in simnet.lnds.items()}
        assert [lnd.port for lnd in simnet.lnds.values()] == [base + 9, base + 19, base + 29]
        assert [channel.nodes for channel in simnet.network.channels] == [("x", "y"), ("y", "z")]
    async with open_simnet(SimnetOptions(folder=tmp_path)) as simnet:
        assert {name: lnd.pubkey for name, lnd in simnet.lnds.items()} == keys
        assert simnet.lnds["z"].port == base + 29
        assert len(simnet.network.channels) == 2
    async with open_simnet(SimnetOptions(folder=tmp_path, nodes=("w",), channels=("w-x:60000",))) as simnet:
        assert [*simnet.lnds] == ["x", "y", "z", "w"]
        assert simnet.lnds["w"].port == base + 39
        assert simnet.setups["w"].path.exists()
        assert simnet.network.channels[-1].nodes == ("w", "x")


async def test_a_folder_that_moved_its_ports_says_so(tmp_path: Path) -> None:
    base = free_base(20)
    async with open_simnet(SimnetOptions(folder=tmp_path, nodes=("x",), port_base=base)):
        pass
    async with open_simnet(SimnetOptions(folder=tmp_path, port_base=base + 10)) as simnet:
        assert "listens on" in simnet.setups["x"].problems[0]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"port_base": "8881"}'])
async def test_options_that_cannot_be_read(content: str, tmp_path: Path) -> None:
    (tmp_path / OPTIONS_FILE).write_text(content)
    with pytest.raises(ConfigError, match="give --port-base to have it written anew"):
        async with open_simnet(SimnetOptions(folder=tmp_path)):
            pass
    base = free_base(30)
    async with open_simnet(SimnetOptions(folder=tmp_path, port_base=base)):
        assert json.loads((tmp_path / OPTIONS_FILE).read_text()) == {"port_base": base}


async def test_a_start_that_fails_lets_go_of_the_folder(tmp_path: Path) -> None:
    for wrong in (SimnetOptions(folder=tmp_path, channels=("a-b",)), SimnetOptions(folder=tmp_path, port_base=65_530)):
        with pytest.raises(UsageError):
            async with open_simnet(wrong):
                pass
    async with open_simnet(SimnetOptions(folder=tmp_path, port_base=free_base(30))) as simnet:
        with pytest.raises(ConfigError, match="another simulated network runs in this folder"):
            async with open_simnet(SimnetOptions(folder=tmp_path)):
                pass
        assert len(simnet.lnds) == 3
