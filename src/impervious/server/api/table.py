"""Which published paths belong to which of our services: a new one adds a case here, and its rows beside it."""

from collections.abc import Iterable

from impervious.server.api import federate, lightning, message, sign, socket, vpn
from impervious.server.operations import Operation
from impervious.service import Service
from impervious.services.federate import FederateService
from impervious.services.lightning import LightningService
from impervious.services.message import MessageService
from impervious.services.sign import SignService
from impervious.services.socket import SocketService
from impervious.services.vpn.service import VpnService


def operations(services: Iterable[Service]) -> list[Operation]:
    """Make the table of everything that can be called under a published path."""
    return [row for service in services for row in _rows(service)]


def _rows(service: Service) -> list[Operation]:
    match service:
        case FederateService():
            return federate.operations(service)
        case LightningService():
            return lightning.operations(service)
        case MessageService():
            return message.operations(service)
        case SignService():
            return sign.operations(service)
        case SocketService():
            return socket.operations(service)
        case VpnService():
            return vpn.operations(service)
        case _:
            return []
