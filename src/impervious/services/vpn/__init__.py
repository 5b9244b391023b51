"""WireGuard time, sold and bought over Lightning.

The rules are functions over values and two small ports, without I/O: `selling` and `buying` decide what a message, a
call or the passing of time causes, inside whatever transaction the ports stand for. A crash can only fall between
transactions, and every function may be called again after one.
"""
