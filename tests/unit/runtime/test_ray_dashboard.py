"""What Ray's REST API says of the cluster, in the shapes that Ray 2.60 answers with."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from enxerto.kernel.errors import UnavailableError
from enxerto.runtime.ray_dashboard import RayDashboard

SERVE, RUN, STRANGER = "01000000", "02000000", "03000000"


def a_group(uid: str, job: str, *cpus: float, state: str = "CREATED") -> dict[str, Any]:
    bundles = [{"unit_resources": {"CPU": amount}, "node_id": "n1"} for amount in cpus]
    return {"placement_group_id": uid, "creator_job_id": job, "state": state, "bundles": bundles}


def an_actor(job: str, group: str | None = None, state: str = "ALIVE", **resources: float) -> dict[str, Any]:
    return {"job_id": job, "state": state, "placement_group_id": group, "required_resources": resources}


def a_task(job: str, kind: str = "NORMAL_TASK", state: str = "RUNNING", **resources: float) -> dict[str, Any]:
    return {**an_actor(job, None, state, **resources), "type": kind}


class Ray:
    """Answers as the dashboard does, filters included."""

    def __init__(self) -> None:
        self.jobs = [{"submission_id": "u1-1", "job_id": RUN}, {"submission_id": None, "job_id": STRANGER}]
        self.lists: dict[str, list[dict[str, Any]]] = {"nodes": [], "placement_groups": [], "actors": [], "tasks": []}

    def app(self) -> web.Application:
        made = web.Application()
        made.add_routes([web.get("/api/jobs/", self._jobs), web.get("/api/v0/{what}", self._list)])
        return made

    async def _jobs(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs)

    async def _list(self, request: web.Request) -> web.Response:
        asked = request.query
        assert (asked["filter_keys"], asked["filter_predicates"], asked["detail"]) == ("state", "=", "true")
        found = [one for one in self.lists[request.match_info["what"]] if one["state"] == asked["filter_values"]]
        return web.json_response(
            {"result": True, "msg": "", "data": {"result": {"total": len(found), "result": found}}}
        )


async def asked(ray: Ray, what: str, **arguments: Any) -> Any:
    async with TestServer(ray.app()) as server, RayDashboard(str(server.make_url("")), None) as dashboard:
        return await getattr(dashboard, what)(**arguments)


async def test_what_each_living_machine_has_is_told() -> None:
    ray = Ray()
    ray.lists["nodes"] = [
        {"state": "ALIVE", "resources_total": {"CPU": 8.0, "memory": 2e9}},
        {"state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}},
        {"state": "DEAD", "resources_total": {"CPU": 64.0}},
    ]
    assert await asked(ray, "machines") == [{"CPU": 8.0, "memory": 2e9}, {"CPU": 4.0, "GPU": 1.0}]
    ray.lists["nodes"] = ray.lists["nodes"][2:]
    with pytest.raises(UnavailableError):
        await asked(ray, "machines")


async def test_what_jobs_and_replicas_reserve_counts_once_and_without_ones_own() -> None:
    ray = Ray()
    ray.lists["placement_groups"] = [
        a_group("g1", RUN, 1.0, 1.0),
        a_group("g2", STRANGER, 0.5),
        a_group("g3", STRANGER, 16.0, state="PENDING"),
    ]
    ray.lists["actors"] = [
        an_actor(SERVE, CPU=2.0),
        an_actor(SERVE),
        an_actor(SERVE, CPU=2.0, state="DEAD"),
        an_actor(STRANGER, group="g2", CPU=0.5),
        an_actor(RUN, group="g1", CPU=1.0),
        an_actor(RUN, CPU=0.25),
    ]
    ray.lists["tasks"] = [
        a_task(STRANGER, CPU=1.0, GPU=1.0),
        a_task(STRANGER, CPU=1.0, state="FINISHED"),
        a_task(SERVE, kind="ACTOR_TASK", CPU=1.0),
    ]
    assert await asked(ray, "reserved", apart_from={"u1-1"}) == {"CPU": 3.5, "GPU": 1.0}
    assert await asked(ray, "reserved", apart_from={"u2-1"}) == {"CPU": 5.75, "GPU": 1.0}
