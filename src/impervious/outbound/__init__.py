"""Stored sends become payments, payments become outcomes; owns everything in flight, also after a crash."""

from impervious.outbound.accept import SendPolicy, accept, parts_of
from impervious.outbound.sender import Outbound

__all__ = ["Outbound", "SendPolicy", "accept", "parts_of"]
