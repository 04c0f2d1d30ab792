"""Predictions whose requests are counted by the version that answered."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from enxerto.inference.domain import Payload, Prediction
from enxerto.inference.ports import Meter
from enxerto.inference.service.caching import ResponseCaches
from enxerto.inference.service.observation import Observer
from enxerto.inference.service.predictions import Predictions, RequestLimits
from enxerto.inference.service.rates import ProjectRates
from enxerto.inference.service.routing import Router, Wanted
from enxerto.inference.service.shadowing import Shadowing
from enxerto.inference.service.statistics import Statistics, VersionStatistics
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import DeploymentName, VersionName


class CountedPredictions(Predictions):
    """What every servicer calls."""

    def __init__(
        self,
        router: Router,
        limits: RequestLimits,
        meter: Meter,
        clock: Clock,
        *,
        rates: ProjectRates,
        shadowing: Shadowing,
        observer: Observer,
        caches: ResponseCaches,
        statistics: Statistics,
    ) -> None:
        super().__init__(
            router, limits, meter, clock, rates=rates, shadowing=shadowing, observer=observer, caches=caches
        )
        self._statistics = statistics

    async def answer(
        self, name: DeploymentName, payload: Payload, item_field: str, timeout_s: float | None, **options: Any
    ) -> Prediction:
        """Answer images and count them; see `Predictions.answer`."""
        start = time.monotonic()
        try:
            prediction = await super().answer(name, payload, item_field, timeout_s, **options)
        except BaseException:
            # A failure is that of the version that is meant to answer; what no version is meant for is not counted.
            with contextlib.suppress(EnxertoError):
                meant = self.serving(name, options.get("wanted")).name
                self._statistics.failed(name, meant, time.monotonic() - start)
            raise
        seconds, version = time.monotonic() - start, prediction.version.name
        # The answer goes out first.
        count = self._statistics.answered
        asyncio.get_running_loop().call_soon(count, name, version, payload.items, prediction.timing, seconds)
        return prediction

    def statistics(
        self, name: DeploymentName | None = None, wanted: Wanted | None = None
    ) -> Mapping[tuple[DeploymentName, VersionName], VersionStatistics]:
        """Counts of the versions that answer: of one deployment, perhaps of one version, or of all deployments.

        Raises:
            DeploymentNotFoundError, DeploymentNotReadyError, VersionNotFoundError: see `serving`.
        """
        if name is not None:
            return self._of(name, wanted)
        self._statistics.keep(self._router.names())
        ready = [each for each in sorted(self._router.names()) if self.ready(each)]
        return {key: counts for each in ready for key, counts in self._of(each, None).items()}

    def _of(
        self, name: DeploymentName, wanted: Wanted | None
    ) -> Mapping[tuple[DeploymentName, VersionName], VersionStatistics]:
        serving = self.serving(name, wanted).name
        self._statistics.of(name, serving)
        counted = self._statistics.of_deployment(name)
        meant = [serving] if wanted is not None else [one for one in counted if self.ready(name, one)]
        return {(name, one): counted[one] for one in sorted(meant)}
