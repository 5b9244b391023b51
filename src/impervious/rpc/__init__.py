"""gRPC over Trio, both roles: `open_channel` to call, `Server` to be called.

The protocol lives in `impervious.wire.grpc`; here are the sockets, the tasks and the clock. Errors are
`grpclib.exceptions.GRPCError`, service classes and stubs are those that grpclib and betterproto2 generate.
"""

from .channel import Channel, ChannelClosed, ChannelStatistics
from .client_stream import ResponseStream, Stream
from .health import Health
from .limits import ChannelLimits, ServerLimits
from .message import Message
from .opening import open_channel, open_channel_over
from .server import Servable, Server, ServerStatistics
from .server_link import CallInfo
from .server_stream import Peer, ServerStream
from .service import StreamsClosed
from .slots import Slots, client_of, fair_share
from .tls import client_context, server_context

__all__ = [
    "CallInfo",
    "Channel",
    "ChannelClosed",
    "ChannelLimits",
    "ChannelStatistics",
    "Health",
    "Message",
    "Peer",
    "ResponseStream",
    "Servable",
    "Server",
    "ServerLimits",
    "ServerStatistics",
    "ServerStream",
    "Slots",
    "Stream",
    "StreamsClosed",
    "client_context",
    "client_of",
    "fair_share",
    "open_channel",
    "open_channel_over",
    "server_context",
]
