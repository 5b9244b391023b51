"""Our numbers beside those of what one would use instead: `python -m benchmarks`."""
