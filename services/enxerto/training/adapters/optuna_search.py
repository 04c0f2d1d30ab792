"""The search of a sweep by Optuna.

TPE chooses (Bergstra et al. 2011, NeurIPS), asynchronous successive halving stops (Li et al. 2020, arXiv:1810.05934).
"""

from collections.abc import Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from enxerto.training.domain import Choice, SweepParameter, SweepPlan

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaSearch:
    """A `Search` in memory.

    Args:
        plan: the sweep's.
    """

    def __init__(self, plan: SweepPlan) -> None:
        self._plan = plan
        self._distributions = {one.field: _distribution(one) for one in plan.parameters}
        pruner: BasePruner = NopPruner()
        if plan.pruning_grace_epochs:
            pruner = SuccessiveHalvingPruner(min_resource=plan.pruning_grace_epochs)
        direction = StudyDirection.MAXIMIZE if plan.maximises else StudyDirection.MINIMIZE
        self._study = optuna.create_study(pruner=pruner, direction=direction)
        self._trials: dict[int, Trial] = {}

    def ask(self, number: int) -> Mapping[str, str]:
        """Parameters of the trial with this number, as text."""
        # A seed for each trial: after a restart the next choice follows from the trials alone, and is a new one.
        seed = (self._plan.seed + number) % 2**32
        # Trials that run count as bad ones for the next choice, so that parallel trials do not try the same.
        self._study.sampler = TPESampler(seed=seed, constant_liar=self._plan.max_parallel_trials > 1)
        trial = self._trials[number] = self._study.ask(self._distributions)
        return {field: _text(value) for field, value in trial.params.items()}

    def restore(self, number: int, parameters: Mapping[str, str]) -> None:
        """A trial that was begun before this search was built."""
        self._study.enqueue_trial({field: self._value(field, text) for field, text in parameters.items()})
        self._trials[number] = self._study.ask(self._distributions)

    def report(self, number: int, step: int, score: float) -> bool:
        """The trial's score after so many epochs; returns whether it should be stopped."""
        trial = self._trials[number]
        trial.report(score, step)
        return bool(self._plan.pruning_grace_epochs) and trial.should_prune()

    def tell(self, number: int, score: float | None) -> None:
        """The trial is over."""
        if score is None:
            self._study.tell(self._trials[number], state=TrialState.FAIL)
        else:
            self._study.tell(self._trials[number], score)

    def _value(self, field: str, text: str) -> object:
        distribution = self._distributions[field]
        if isinstance(distribution, CategoricalDistribution):
            return text
        return int(text) if isinstance(distribution, IntDistribution) else float(text)


def _distribution(parameter: SweepParameter) -> BaseDistribution:
    values = parameter.values
    if isinstance(values, Choice):
        return CategoricalDistribution(values.values)
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _text(value: object) -> str:
    # repr keeps every digit of a float, so that the same number is read back.
    return value if isinstance(value, str) else repr(value)
