"""The front doors: gRPC, REST and streams, over one table of operations and one log of events.

Foreign shapes stop here. `listeners.open_listeners` takes the ports, `doors.Doors` serves a node behind them. Nothing
is imported here, so that a program that only needs the former does not load Quart and Hypercorn.
"""
