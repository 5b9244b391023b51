"""The simulated network without Trio: ledger, graph, invoices, payments and an agenda of what happens when.

Commands change it and return; `advance` does what has come due; both leave news behind, which whoever drives the engine
collects and hands on. Time, randomness and the wall clock come from outside, so one seed gives one history.
"""
