"""Lives with what the server says of itself by reflection, and no file of ours: `reflected.py ADDRESS`."""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

import life


class Reflected:
    """Calls by descriptors."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        life.check("hearth.v1.VmService" in database.get_services(), "it is not reflected")
        self.pool = descriptor_pool.DescriptorPool(database)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def method(self, path, kind):
        service, method = path.split("/")
        found = self.pool.FindServiceByName(service).FindMethodByName(method)
        request = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        call = getattr(self.channel, kind)(
            f"/{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call, request, found

    def call(self, path, **fields):
        _, _, found = self.method(path, "unary_unary")
        if found.server_streaming:
            return next(iter(self.stream(path, **fields)))
        call, request, _ = self.method(path, "unary_unary")
        return call(request(**fields), timeout=life.TIMEOUT)

    def stream(self, path, **fields):
        call, request, _ = self.method(path, "unary_stream")
        return call(request(**fields))

    def both(self, path, requests):
        call, request, _ = self.method(path, "stream_stream")
        return call(iter([request(**it) for it in requests]), timeout=life.TIMEOUT)


if __name__ == "__main__":
    life.live(Reflected(sys.argv[1]))
    print("lived")
