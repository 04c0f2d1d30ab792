"""Searches for better settings."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

from enxerto.client import _converters, _results
from enxerto.client._base_models import BaseModelCalls
from enxerto.client._errors import TrainingFailedError
from enxerto.client._settings import TrainingSettings, enum_text, field_of
from enxerto.client._waiting import poll
from enxerto.training.v1 import sweep_pb2, sweep_service_pb2

Vary = Mapping[str, "_results.Between | Sequence[str | float | bool]"]
"""Settings by dotted path, and what they may be: bounds, or a few values."""


class SweepCalls(BaseModelCalls):
    """Sweeps."""

    def sweep(
        self,
        data: _results.Snapshot | str,
        *,
        model: str,
        vary: Vary,
        max_trials: int,
        base_model: str = "efficientnet-lite0",
        max_parallel_trials: int = 1,
        pruning_grace_epochs: int = 0,
        search_seed: int = 0,
        **settings: Unpack[TrainingSettings],
    ) -> _results.Sweep:
        """Start a search whose trials are runs, and return it in RUNNING.

            client.sweep("flowers", model="flowers", max_trials=20, vary={
                "learning_rate": Between(1e-4, 1e-2, log=True),
                "loss.label_smoothing": [0.0, 0.1],
            })

        Args:
            data: as for `train`, like `model`, `base_model` and `settings`: what every trial starts from.
            vary: settings by dotted path, each with bounds or with a few values.
            max_trials: in all.
            max_parallel_trials: at the same time.
            pruning_grace_epochs: epochs that a trial gets before it may be stopped for doing worse than others; 0 stops
                none.
            search_seed: of the search.

        Raises:
            TypeError: a setting that does not exist.
            ValueError: a value that its setting does not take.
        """
        wanted = sweep_pb2.Sweep(
            spec=self._spec(data, base_model, model, settings),
            parameters=[_parameter(path, values) for path, values in vary.items()],
            max_trials=max_trials,
            max_parallel_trials=max_parallel_trials,
            pruning_grace_epochs=pruning_grace_epochs,
            seed=search_seed,
        )
        request = sweep_service_pb2.CreateSweepRequest(
            parent=self._names.project, sweep=wanted, request_id=uuid.uuid4().hex
        )
        return _converters.sweep(self._call(self._stubs.sweeps.CreateSweep, request))

    def get_sweep(self, name: str) -> _results.Sweep:
        """Read a sweep."""
        request = sweep_service_pb2.GetSweepRequest(name=self._names.sweep(name))
        return _converters.sweep(self._call(self._stubs.sweeps.GetSweep, request))

    def sweeps(self, limit: int | None = None) -> Iterator[_results.Sweep]:
        """The project's sweeps, newest first."""
        request = sweep_service_pb2.ListSweepsRequest(parent=self._names.project)
        return map(_converters.sweep, self._pages(self._stubs.sweeps.ListSweeps, request, "sweeps", limit))

    def cancel_sweep(self, name: str) -> _results.Sweep:
        """Ask a sweep and its trials to stop."""
        request = sweep_service_pb2.CancelSweepRequest(name=self._names.sweep(name))
        return _converters.sweep(self._call(self._stubs.sweeps.CancelSweep, request))

    def wait_sweep(self, name: str, *, timeout_s: float = 86_400.0) -> _results.Sweep:
        """Wait until a sweep has SUCCEEDED.

        Raises:
            TrainingFailedError: it FAILED or was CANCELLED.
            DeadlineExceededError: it went on.
        """

        def look() -> _results.Sweep | None:
            found = self.get_sweep(name)
            return found if found.state.is_final else None

        sweep = poll(look, f"sweep {name}", timeout_s)
        if sweep.state is not _results.SweepState.SUCCEEDED:
            failure = sweep.error
            raise TrainingFailedError(
                f"{sweep.name} ended {sweep.state}" + (f": {failure.message}" if failure else ""),
                code=failure.code if failure else "CANCELLED",
                reason=failure.reason if failure else f"SWEEP_{sweep.state}",
            )
        return sweep


def _parameter(path: str, values: "_results.Between | Sequence[str | float | bool]") -> sweep_pb2.SweepParameter:
    field = field_of(path)
    parameter = sweep_pb2.SweepParameter(field=path)
    if not isinstance(values, _results.Between):
        for value in values:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if field.enum_type is not None:
                text = enum_text(field.enum_type, path, text)
            parameter.choices.values.append(text)
    elif isinstance(values.low, int) and isinstance(values.high, int):
        parameter.int_range.min, parameter.int_range.max, parameter.int_range.log = values.low, values.high, values.log
    else:
        bounds = parameter.float_range
        bounds.min, bounds.max, bounds.log = values.low, values.high, values.log
    return parameter
