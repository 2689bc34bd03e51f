"""Lives with the stubs that grpcio-tools made of our files: `stubs.py ADDRESS`, with the stubs on the path."""

import importlib
import json
import sys

import grpc
from google.protobuf import symbol_database

import life

MODULES = {
    "hearth.v1.VmService": "hearth.v1.vm_service",
    "hearth.v1.PoolService": "hearth.v1.pool_service",
    "google.longrunning.Operations": "google.longrunning.operations",
}


class Stubs:
    """Calls by stubs, with the retry policy that the API comes with."""

    def __init__(self, address, service_config):
        options = [("grpc.service_config", service_config)]
        self.channel = grpc.insecure_channel(address, options=options)
        # What is packed into others is in files of its own.
        for name in ("google.rpc.error_details", "google.rpc.status"):
            importlib.import_module(f"{name}_pb2")
        for name in ("artifact", "operation"):
            importlib.import_module(f"hearth.v1.{name}_pb2")

    def message(self, name):
        return symbol_database.Default().GetSymbol(name)

    def method(self, path):
        service, method = path.split("/")
        module = importlib.import_module(f"{MODULES[service]}_pb2_grpc")
        stub = getattr(module, f"{service.rsplit('.', 1)[-1]}Stub")(self.channel)
        messages = importlib.import_module(f"{MODULES[service]}_pb2")
        descriptor = messages.DESCRIPTOR.services_by_name[service.rsplit(".", 1)[-1]]
        request = self.message(descriptor.methods_by_name[method].input_type.full_name)
        return getattr(stub, method), request

    def call(self, path, **fields):
        call, request = self.method(path)
        answer = call(request(**fields), timeout=life.TIMEOUT)
        return next(iter(answer)) if hasattr(answer, "__iter__") else answer

    def stream(self, path, **fields):
        call, request = self.method(path)
        return call(request(**fields))

    def both(self, path, requests):
        call, request = self.method(path)
        return call(iter([request(**it) for it in requests]), timeout=life.TIMEOUT)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as config:
        life.live(Stubs(sys.argv[1], json.dumps(json.load(config))))
    print("lived")
