"""Run the command line: `python -m impervious`."""
