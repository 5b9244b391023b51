"""Asks a server to describe itself: `python -m tests.interop.describe PORT`. Prints one JSON object."""

import json
import sys

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse


def main() -> None:
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
        ask = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        listed, described = ask(
            iter(
                [
                    ServerReflectionRequest(list_services=""),
                    ServerReflectionRequest(file_containing_symbol="interop.Peer"),
                ]
            ),
            timeout=20,
        )
        [file] = described.file_descriptor_response.file_descriptor_proto
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        print(
            json.dumps(
                {
                    "services": sorted(service.name for service in listed.list_services_response.service),
                    "methods": sorted(method.name for method in FileDescriptorProto.FromString(file).service[0].method),
                    "health": "SERVING" if check(b"", timeout=20) == b"\x08\x01" else "?",
                }
            )
        )


if __name__ == "__main__":
    main()
