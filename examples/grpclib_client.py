"""Sends a text over gRPC and shows what happens then, with grpclib on asyncio.

    python grpclib_client.py 127.0.0.1:8881 PUBKEY "hello"

The stubs come with the package; for another language generate them from the .proto files in proto/.
"""

import asyncio
import sys
import uuid

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from impervious.pb.messaging import MessagingStub, SendMessageRequest
from impervious.pb.websocket import SubscribeRequest, SubscribeResponse

SUBSCRIBE = "/websocket.Websocket/Subscribe"


async def main(address: str, pubkey: str, text: str) -> None:
    """Subscribe, send, and print events until interrupted."""
    host, _, port = address.rpartition(":")
    async with Channel(host.strip("[]"), int(port)) as channel:
        # By hand rather than through WebsocketStub, because the headers say when the subscription stands: an answer
        # cannot come too early then.
        async with channel.request(SUBSCRIBE, Cardinality.UNARY_STREAM, SubscribeRequest, SubscribeResponse) as stream:
            await stream.send_message(SubscribeRequest(), end=True)
            await stream.recv_initial_metadata()
            # With a key a call can be repeated after a lost answer: the message is sent, and paid, once.
            key = {"idempotency-key": str(uuid.uuid4())}
            request = SendMessageRequest(pubkey=pubkey, text=text)
            sent = await MessagingStub(channel).send_message(request, metadata=key)
            print("sent", sent.id, flush=True)
            async for event in stream:
                show(event, ours=event.id == sent.id, answer=event.reply_to_id == sent.id)


def show(event: SubscribeResponse, *, ours: bool, answer: bool) -> None:
    """Print an event; the outcome of what we sent has our own message's id."""
    kind = "our message:" if ours else "the answer:" if answer else f"{event.service_type}:"
    print(event.seq, kind, event.data.decode(errors="replace"), flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except GRPCError as error:
        sys.exit(f"{error.status.name}: {error.message}")
    except KeyboardInterrupt:
        pass
