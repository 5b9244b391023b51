"""A simulated network for daemons of other processes: its ports, the files that point at them, and what it prints.

`layout` gives each node its ports, `setup` writes the configuration of a daemon on it, `serving` opens it all.
"""
