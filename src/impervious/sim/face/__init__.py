"""A simulated LND on the wire: gRPC over TLS with macaroons, so that programs written for LND work unchanged."""

from impervious.sim.face.credentials import Credentials
from impervious.sim.face.server import LndFace
from impervious.sim.face.serving import ServedLnd, open_lnds

__all__ = ["Credentials", "LndFace", "ServedLnd", "open_lnds"]
