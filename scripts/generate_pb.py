"""Generate src/impervious/pb from proto/, or check with --check that it is up to date."""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = ROOT / "src" / "impervious" / "pb"
INIT = '"""Generated from proto/ by `just proto`; never edited."""\n'
OPTIONS = ("client_generation=async", "server_generation=async")


def generate(target: Path) -> None:
    """Write the package of generated code, and protoc's descriptor set, into the empty folder `target`."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "--proto_path=.",
            f"--python_betterproto2_out={target}",
            *(f"--python_betterproto2_opt={option}" for option in OPTIONS),
            f"--descriptor_set_out={target / 'descriptors.bin'}",
            "--include_imports",
            "--include_source_info",  # the comments, which describe the fields in /openapi.json
            *sources,
        ],
        cwd=PROTO,
        check=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    (target / "__init__.py").write_text(INIT)


def differences(ours: Path, fresh: Path) -> list[str]:
    """Name the files that differ between two folders, or are in one of them only."""
    names = {path.relative_to(root) for root in (ours, fresh) for path in root.rglob("*") if path.is_file()}
    kept = sorted(name for name in names if "__pycache__" not in name.parts)
    return [
        str(name)
        for name in kept
        if not (ours / name).is_file()
        or not (fresh / name).is_file()
        or not filecmp.cmp(ours / name, fresh / name, shallow=False)
    ]


def replace(fresh: Path) -> None:
    """Put the fresh files in the package and remove what is no longer generated."""
    for name in differences(PACKAGE, fresh):
        if (fresh / name).is_file():
            (PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
            (PACKAGE / name).write_bytes((fresh / name).read_bytes())
        else:
            (PACKAGE / name).unlink()


def main() -> int:
    """Run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the code is not up to date")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        try:
            generate(fresh)
        except subprocess.CalledProcessError as failure:
            print(failure.stderr, file=sys.stderr)
            return 1
        stale = differences(PACKAGE, fresh)
        if check:
            for name in stale:
                print(f"src/impervious/pb/{name} is not what proto/ gives: run `just proto`", file=sys.stderr)
            return 1 if stale else 0
        replace(fresh)
        print(f"{len(stale)} files changed")
        return 0


if __name__ == "__main__":
    sys.exit(main())
