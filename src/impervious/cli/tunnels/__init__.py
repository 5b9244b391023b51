"""Buying tunnels from a command line: what the daemon is asked in which order, and the files that come of it."""
