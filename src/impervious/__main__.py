"""Run the command line: `impervious`, or `python -m impervious`."""

import sys

from impervious.cli.main import main

__all__ = ("main",)

if __name__ == "__main__":
    sys.exit(main())
