"""Uses a server that it knows nothing of: `python -m tests.interop.reflect PORT`. Prints one JSON object.

grpcio's reflection client finds the services, and google.protobuf makes classes of what it is told.
"""

import json
import sys
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main() -> None:
    with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)

        def call(service: str, method: str, **fields: Any) -> dict[str, Any]:
            found = pool.FindServiceByName(service).methods_by_name[method]
            request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
            ask = channel.unary_unary(
                f"/{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            return MessageToDict(ask(request(**fields), timeout=20))

        services = list(database.get_services())
        signature = call("signing.Signing", "SignMessage", msg="hello")["signature"]
        print(
            json.dumps(
                {
                    "services": sorted(services),
                    "described": sorted(name for name in services if pool.FindServiceByName(name).methods),
                    "verified": call("signing.Signing", "VerifySignature", msg="hello", signature=signature)["result"],
                }
            )
        )


if __name__ == "__main__":
    main()
