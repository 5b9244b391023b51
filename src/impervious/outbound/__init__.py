"""Stored sends become payments, payments become outcomes; owns everything in flight, also after a crash."""

from impervious.outbound.accept import SendPolicy, accept
from impervious.outbound.sender import Outbound

__all__ = ["Outbound", "SendPolicy", "accept"]
