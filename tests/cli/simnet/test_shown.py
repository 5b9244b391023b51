from pathlib import Path

from tests.cli.processes import free_base

from impervious.cli.simnet.serving import SimnetOptions, open_simnet
from impervious.cli.simnet.shown import lines, summary


async def test_what_is_printed(tmp_path: Path) -> None:
    folder, base = tmp_path / "my net", free_base(20)
    options = SimnetOptions(folder=folder, nodes=("x", "y"), channels=("x-y:50000:20001",), port_base=base)
    async with open_simnet(options) as simnet:
        x = simnet.lnds["x"]
        said = [*lines(simnet)]
        assert said[:4] == [
            "ready",
            f"\nx  {x.pubkey}",
            f"  LND     127.0.0.1:{base + 9}  {folder}/x/tls.cert  {folder}/x/admin.macaroon",
            f"  daemon  grpc 127.0.0.1:{base}, http 127.0.0.1:{base + 1}, text 127.0.0.1:{base + 2}",
        ]
        assert "  x 20001 sat - 29999 sat y" in said
        assert said[-1] == f"  impervious run --config '{folder}/y/config.yml'"
        found = summary(simnet)
    assert found["channels"] == [{"nodes": ["x", "y"], "capacity_sat": 50_000, "balances_sat": [20_001, 29_999]}]
    assert isinstance(found["nodes"], dict)
    assert found["nodes"]["x"] == {
        "pubkey": x.pubkey.hex,
        "lnd": f"127.0.0.1:{base + 9}",
        "tls_cert": f"{folder}/x/tls.cert",
        "admin_macaroon": f"{folder}/x/admin.macaroon",
        "config": f"{folder}/x/config.yml",
        "daemon": {"grpc": f"127.0.0.1:{base}", "http": f"127.0.0.1:{base + 1}", "text": f"127.0.0.1:{base + 2}"},
    }


async def test_a_daemon_whose_file_cannot_be_read_has_no_doors_to_show(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/config.yml").write_text("servre: 1\n")
    async with open_simnet(SimnetOptions(folder=tmp_path, nodes=("x",), port_base=free_base(10))) as simnet:
        nodes = summary(simnet)["nodes"]
        assert isinstance(nodes, dict)
        assert isinstance(nodes["x"], dict)
        assert nodes["x"]["daemon"] == {}
