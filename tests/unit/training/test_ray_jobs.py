"""What Ray is asked to do for a run, and what it says of its size."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from obstore.store import MemoryStore

from enxerto.runtime.ray_dashboard import RayDashboard
from enxerto.training.adapters.object_store import spec_key
from enxerto.training.adapters.ray_jobs import RayJobRunner, WorkerLayout
from enxerto.training.domain import ClusterSize, Machine
from fakes.training_stores import START
from fakes.training_values import a_run, some_content

LAYOUT = WorkerLayout("python", "memory:///", Path("/cache"), None)
MACHINES = [{"CPU": 4.0, "memory": 1e9}, {"CPU": 8.0, "GPU": 2.0}]


class Ray:
    """Takes jobs, and has two machines on which nothing runs."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []

    def app(self) -> web.Application:
        made = web.Application()
        made.add_routes(
            [
                web.post("/api/jobs/", self._take),
                web.get("/api/jobs/", self._jobs),
                web.get("/api/v0/{what}", self._list),
            ]
        )
        return made

    async def _take(self, request: web.Request) -> web.Response:
        self.jobs.append(await request.json())
        return web.json_response({})

    async def _jobs(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def _list(self, request: web.Request) -> web.Response:
        found = [{"resources_total": one} for one in MACHINES] if request.match_info["what"] == "nodes" else []
        return web.json_response({"data": {"result": {"result": found}}})


@pytest.fixture
def ray() -> Ray:
    return Ray()


@pytest.fixture
async def dashboard(ray: Ray) -> AsyncIterator[RayDashboard]:
    async with TestServer(ray.app()) as server, RayDashboard(str(server.make_url("")), None) as opened:
        yield opened


async def test_a_job_reads_from_its_document_whether_it_has_gpus(ray: Ray, dashboard: RayDashboard) -> None:
    store = MemoryStore()
    run = a_run().attempt_next(now=START, use_gpu=True)
    await RayJobRunner(dashboard, store, LAYOUT).submit(run, some_content(), {}, ())
    assert json.loads(bytes(obstore.get(store, spec_key(run.uid)).bytes()))["use_gpu"] is True
    # A worker of an earlier version refuses arguments that it does not know.
    assert "gpu" not in ray.jobs[0]["entrypoint"]


async def test_a_cluster_is_as_large_as_it_is_or_may_become(dashboard: RayDashboard) -> None:
    async def size(grows_to: ClusterSize) -> tuple[float, float]:
        found = await RayJobRunner(dashboard, MemoryStore(), LAYOUT, grows_to).size(())
        return found.cpus, found.gpus

    as_it_is = await RayJobRunner(dashboard, MemoryStore(), LAYOUT).size(())
    assert as_it_is.machines == (Machine(4), Machine(8, 2))
    # A machine of another size may come.
    growing = await RayJobRunner(dashboard, MemoryStore(), LAYOUT, ClusterSize(64, 0)).size(())
    assert growing.machines == ()
    assert await size(ClusterSize(0, 0)) == (12, 2)
    assert await size(ClusterSize(64, 8)) == (64, 8)
    assert await size(ClusterSize(64, 0)) == (64, 2)
    assert await size(ClusterSize(0, 8)) == (12, 8)
