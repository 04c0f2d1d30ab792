"""gRPC services that answer what a test has written down, for testing callers of the contracts."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from enxerto.inference.v1 import deployment_service_pb2_grpc, quality_service_pb2_grpc, vision_service_pb2_grpc
from enxerto.registry.v1 import registry_service_pb2_grpc
from enxerto.training.v1 import dataset_service_pb2_grpc, sweep_service_pb2_grpc, training_service_pb2_grpc

Answer = Callable[[Any, grpc.ServicerContext], Any]

_SERVICERS = (
    (registry_service_pb2_grpc, "RegistryService"),
    (dataset_service_pb2_grpc, "DatasetService"),
    (sweep_service_pb2_grpc, "SweepService"),
    (training_service_pb2_grpc, "TrainingService"),
    (deployment_service_pb2_grpc, "DeploymentService"),
    (vision_service_pb2_grpc, "VisionService"),
    (quality_service_pb2_grpc, "QualityService"),
)


@dataclass
class ScriptedServices:
    """All services behind one address. `answers` maps a method's name to what answers it."""

    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)
    """Method, request and metadata of every call, in order."""

    def on(self, method: str, answer: Answer | Message) -> None:
        """Answer a method with a message, or with what a function returns."""
        self.answers[method] = answer if callable(answer) else lambda _request, _context: answer

    def requests(self, method: str) -> list[Any]:
        """The requests of one method so far."""
        return [request for name, request, _metadata in self.calls if name == method]

    def _serve(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        if not isinstance(request, Message):
            request = list(request)
        metadata = {item.key: item.value for item in context.invocation_metadata()}
        self.calls.append((method, request, metadata))
        if method not in self.answers:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} has no answer in this test")
        return self.answers[method](request, context)


def refuse(context: grpc.ServicerContext, code: str, message: str, *details: Message) -> None:
    """End a call as the services do: a status with details."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


@contextlib.contextmanager
def scripted_services(port: int = 0) -> Iterator[ScriptedServices]:
    """Serve on a port of the loopback until the context ends; running streams are cut then."""
    scripted = ScriptedServices()
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(
            threads, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 32 * 2**20)]
        )
        for module, service in _SERVICERS:
            servicer = _servicer(getattr(module, f"{service}Servicer"), scripted)
            getattr(module, f"add_{service}Servicer_to_server")(servicer, server)
        scripted.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        server.start()
        try:
            yield scripted
        finally:
            server.stop(0).wait()


def _servicer(contract: type, scripted: ScriptedServices) -> Any:
    def method(name: str) -> Callable[..., Any]:
        return lambda _self, request, context: scripted._serve(name, request, context)

    names = [name for name in vars(contract) if not name.startswith("_")]
    return type(contract.__name__, (contract,), {name: method(name) for name in names})()
