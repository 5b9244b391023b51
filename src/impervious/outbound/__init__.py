"""Stored sends become payments, payments become outcomes; owns everything in flight, also after a crash."""

from impervious.outbound.accept import SendPolicy, accept, parts_of
from impervious.outbound.outcome import end_if_answered
from impervious.outbound.sender import Outbound

__all__ = ["Outbound", "SendPolicy", "accept", "end_if_answered", "parts_of"]
