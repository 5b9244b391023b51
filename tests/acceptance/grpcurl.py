"""What grpcurl does: `python -m tests.acceptance.grpcurl ADDRESS SERVICE/METHOD < JSON`. It knows no .proto file."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    service, _, name = sys.argv[2].partition("/")
    with grpc.insecure_channel(sys.argv[1]) as channel:
        method = (
            DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(service).methods_by_name[name]
        )
        call = channel.unary_unary(
            f"/{sys.argv[2]}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        print(MessageToJson(call(Parse(sys.stdin.read(), GetMessageClass(method.input_type)()), timeout=60)))


if __name__ == "__main__":
    main()
