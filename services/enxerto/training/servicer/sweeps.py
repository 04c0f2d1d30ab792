"""Searches for hyperparameters."""

from typing import Any

import grpc

from enxerto.kernel.names import SweepName
from enxerto.training import converters
from enxerto.training.service import Sweeps
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2, sweep_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class SweepServicer(sweep_service_pb2_grpc.SweepServiceServicer):
    """enxerto.training.v1.SweepService."""

    def __init__(self, sweeps: Sweeps) -> None:
        self._sweeps = sweeps

    async def CreateSweep(self, request: sweep_service_pb2.CreateSweepRequest, context: Context) -> sweep_pb2.Sweep:
        """Accept a sweep."""
        new = converters.new_sweep(request)
        sweep = await self._sweeps.create(new.parent, new.sweep_id, new.plan, new.labels, new.request)
        return converters.sweep_to_proto(sweep)

    async def GetSweep(self, request: sweep_service_pb2.GetSweepRequest, context: Context) -> sweep_pb2.Sweep:
        """Read one sweep."""
        return converters.sweep_to_proto(await self._sweeps.get(SweepName.parse(request.name)))

    async def ListSweeps(
        self, request: sweep_service_pb2.ListSweepsRequest, context: Context
    ) -> sweep_service_pb2.ListSweepsResponse:
        """List the sweeps of a project, newest first."""
        parent, page = converters.project_page(request.parent, request.page_size, request.page_token, numbered=True)
        found = await self._sweeps.list_page(parent, page)
        return sweep_service_pb2.ListSweepsResponse(
            sweeps=[converters.sweep_to_proto(one) for one in found.items], next_page_token=found.next_page_token
        )

    async def CancelSweep(self, request: sweep_service_pb2.CancelSweepRequest, context: Context) -> sweep_pb2.Sweep:
        """Ask a sweep and its trials to stop."""
        return converters.sweep_to_proto(await self._sweeps.cancel(SweepName.parse(request.name)))
