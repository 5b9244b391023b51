"""Settled keysends become events: verify, assemble, order, log."""

from impervious.inbound.reader import Inbound

__all__ = ["Inbound"]
