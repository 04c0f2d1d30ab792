"""Ray's REST API (Jobs and Serve), so that a service needs no Ray of the cluster's own version."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from enxerto.kernel.errors import UnavailableError


class RayRefusedError(Exception):
    """Ray answered, and the answer was no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Ray's dashboard answered {status}: {text[:500]}")
        self.status = status
        """The HTTP status."""
        self.text = text
        """The body."""


class RayDashboard:
    """Calls one Ray cluster's dashboard; open while the context is."""

    def __init__(self, url: str, token_file: Path | None, *, timeout_s: float = 20.0) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token_file.read_text().strip()}"
        self._session = aiohttp.ClientSession(timeout=self._timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return the decoded JSON body, or None when the body is empty.

        Raises:
            RayRefusedError: Ray answered with a status of 400 or more.
            UnavailableError: Ray cannot be reached.
        """
        assert self._session is not None, "use `async with`"
        try:
            async with self._session.request(method, self._url + path, json=body) as response:
                text = await response.text()
                if response.status >= 400:
                    raise RayRefusedError(response.status, text)
                return await response.json(content_type=None) if text.strip() else None
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise UnavailableError(f"Ray's dashboard at {self._url} cannot be reached", retry_after_s=2.0) from error

    async def machines(self) -> list[dict[str, float]]:
        """What each of the cluster's living machines has in all, by resource: `CPU`, `GPU` and so on.

        Raises:
            RayRefusedError: Ray answered with a status of 400 or more.
            UnavailableError: Ray cannot be reached, or does not know its machines yet.
        """
        machines = await self._listed("nodes", "ALIVE")
        if not machines:
            raise UnavailableError("Ray has no living machine", retry_after_s=2.0)
        return [_sum([one.get("resources_total")]) for one in machines]

    async def reserved(self, *, apart_from: Collection[str]) -> dict[str, float]:
        """What is reserved on the cluster by jobs and by Serve, by resource.

        Asked for job by job: Ray tells what is in use as text, and not by whom.

        Args:
            apart_from: submission ids of jobs that are not to count.

        Raises:
            RayRefusedError: Ray answered with a status of 400 or more.
            UnavailableError: Ray cannot be reached.
        """
        jobs, groups, actors, tasks = await asyncio.gather(
            self.call("GET", "/api/jobs/"),
            self._listed("placement_groups", "CREATED"),
            self._listed("actors", "ALIVE"),
            self._listed("tasks", "RUNNING"),
        )
        left_out = {one["job_id"] for one in jobs if one.get("submission_id") in apart_from}
        inside = {one["placement_group_id"] for one in groups}
        # Inside a group everything takes its part of what the group has reserved.
        loose = [one for one in actors if one.get("placement_group_id") not in inside]
        loose += [one for one in tasks if one["type"] == "NORMAL_TASK" and one.get("placement_group_id") not in inside]
        return _sum(
            [
                *(one.get("required_resources") for one in loose if one["job_id"] not in left_out),
                *(
                    bundle.get("unit_resources")
                    for one in groups
                    if one["creator_job_id"] not in left_out
                    for bundle in one.get("bundles") or ()
                ),
            ]
        )

    async def _listed(self, what: str, state: str) -> list[dict[str, Any]]:
        wanted = f"filter_keys=state&filter_predicates=%3D&filter_values={state}"
        answer = await self.call("GET", f"/api/v0/{what}?limit=10000&detail=true&{wanted}")
        found: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return found


def _sum(parts: Iterable[Mapping[str, float] | None]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in (part or {}).items():
            total[name] = total.get(name, 0.0) + float(amount)
    return total
