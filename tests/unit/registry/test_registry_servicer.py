"""Every RPC of the contract is implemented, by a coroutine or an asynchronous generator of the servicer itself."""

import inspect

from enxerto.registry.server import SERVICES
from enxerto.registry.servicer import RegistryServicer
from enxerto.registry.v1 import registry_service_pb2

SERVICE = registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"]


def test_every_rpc_is_implemented() -> None:
    for method in SERVICE.methods:
        implementation = vars(RegistryServicer).get(method.name)
        assert implementation is not None, f"{method.name} is not implemented"
        kind = inspect.isasyncgenfunction if method.server_streaming else inspect.iscoroutinefunction
        assert kind(implementation), method.name


def test_nothing_but_rpcs_is_public() -> None:
    public = {name for name in vars(RegistryServicer) if not name.startswith("_")}
    assert public == {method.name for method in SERVICE.methods}


def test_the_served_name_is_the_contracts() -> None:
    assert SERVICES == ("enxerto.registry.v1.RegistryService",)
