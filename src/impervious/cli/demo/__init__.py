"""The demonstration: two daemons on a simulated network, and a tour of what they can do, through their front doors.

`stage` puts it up, `tour` lists the steps, `steps` has their code, and everything that happens is a fact (`facts`) that
a view shows: JSON lines, plain lines, or the live one of a terminal.
"""
