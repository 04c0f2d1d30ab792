"""Sweeps as plain JSON, for SQL columns."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from enxerto.kernel.names import RunName
from enxerto.training.adapters import codec
from enxerto.training.domain import Choice, NumberRange, RunState, SweepParameter, SweepPlan, Trial


def plan_to_json(plan: SweepPlan) -> dict[str, Any]:
    """What is searched, and how."""
    return {
        "template": base64.b64encode(plan.template).decode(),
        "spec": codec.spec_to_json(plan.spec),
        "parameters": [{"field": one.field, "values": asdict(one.values)} for one in plan.parameters],
        "max_trials": plan.max_trials,
        "max_parallel_trials": plan.max_parallel_trials,
        "pruning_grace_epochs": plan.pruning_grace_epochs,
        "seed": plan.seed,
    }


def plan_from_json(value: Mapping[str, Any]) -> SweepPlan:
    """The reverse of `plan_to_json`."""
    return SweepPlan(
        **{
            **value,
            "template": base64.b64decode(value["template"]),
            "spec": codec.spec_from_json(value["spec"]),
            "parameters": tuple(SweepParameter(one["field"], _values(one["values"])) for one in value["parameters"]),
        }
    )


def _values(value: Mapping[str, Any]) -> NumberRange | Choice:
    return Choice(tuple(value["values"])) if "values" in value else NumberRange(**value)


def trial_to_json(trial: Trial) -> dict[str, Any]:
    """One try."""
    return {
        "number": trial.number,
        "run": str(trial.run),
        "parameters": dict(trial.parameters),
        "state": trial.state.value,
        "score": trial.score,
        "pruned": trial.pruned,
    }


def trial_from_json(value: Mapping[str, Any]) -> Trial:
    """The reverse of `trial_to_json`."""
    return Trial(**{**value, "run": RunName.parse(value["run"]), "state": RunState(value["state"])})
