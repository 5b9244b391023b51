"""The services that come with the node; they get nothing that others do not."""

from typing import Final

from impervious.service import Service
from impervious.services.federate import FederateService
from impervious.services.lightning import LightningService
from impervious.services.message import MessageService
from impervious.services.sign import SignService
from impervious.services.socket import SocketService
from impervious.services.vpn.service import VpnService

BUILT_IN: Final[tuple[type[Service], ...]] = (
    FederateService,
    LightningService,
    MessageService,
    SignService,
    SocketService,
    VpnService,
)
