"""Put the tables of all settings into docs/config.md, made from what the settings say about themselves."""

import sys
from pathlib import Path

from impervious.config import reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"
BEGIN = "<!-- made by scripts/config_reference.py -->\n"
END = "<!-- end -->\n"


def main() -> int:
    """Run, and return the exit code."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE.name} has lost its marks {BEGIN.strip()} and {END.strip()}", file=sys.stderr)
        return 1
    PAGE.write_text(before + BEGIN + reference() + END + after, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
