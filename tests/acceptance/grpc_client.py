"""A program of 2021 on grpcio: `python -m tests.acceptance.grpc_client ADDRESS`, with its stubs on PYTHONPATH.

It reads one JSON object a line and answers with one: a call, a subscription, or the next event of that.
"""

import importlib
import json
import sys
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict

PACKAGES = ("messaging", "federate", "vpn", "socket", "signing", "lightning", "websocket")


def shown(message: Any) -> dict[str, Any]:
    return dict(MessageToDict(message, always_print_fields_with_no_presence=True))


class Program:
    def __init__(self, channel: grpc.Channel) -> None:
        self.stubs: dict[str, Any] = {}
        self.requests: dict[str, Any] = {}
        self.events: Any = None
        for package in PACKAGES:
            messages = importlib.import_module(f"{package}_pb2")
            services = importlib.import_module(f"{package}_pb2_grpc")
            for service in messages.DESCRIPTOR.services_by_name.values():
                self.stubs[service.full_name] = getattr(services, f"{service.name}Stub")(channel)
                for method in service.methods:
                    self.requests[f"{service.full_name}/{method.name}"] = getattr(messages, method.input_type.name)

    def do(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            if "next" in order:
                return shown(next(self.events))
            path, fields = order["call"], order.get("fields", {})
            service, _, method = path.partition("/")
            request = ParseDict(fields, self.requests[path]())
            answer = getattr(self.stubs[service], method)(request, timeout=order["timeout_s"])
        except grpc.RpcError as error:
            return {"error": {"code": error.code().value[0], "message": error.details()}}
        if method == "Subscribe":
            self.events = answer
            answer.initial_metadata()  # comes when the subscription stands
            return {}
        return shown(answer)


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        program = Program(channel)
        for line in sys.stdin:
            print(json.dumps(program.do(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
