"""Workers whose rounding differs decide alike: one that stops alone leaves the others waiting."""

import sys
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from enxerto.vision.finetuning import StopSpec
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.engine import Attempt, StopReason, fit
from enxerto.vision.torch.learner import Score
from enxerto.vision.torch.progress import Phase
from fakes.numbers_learner import NumbersLearner, a_job, a_spec
from worker_pairs import run_pair


class RoundingLearner(NumbersLearner):
    """To the second worker every epoch seems a little worse than the one before, to the first a little better."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.step = 1e-7 * (1 if rank else -1)

    def validate(self) -> Score:
        super().validate()
        return Score(0.5, 1.0 + self.step * len(self.validated), {"accuracy": 0.5})


def test_workers_that_round_otherwise_end_in_the_same_epoch(tmp_path: Path) -> None:
    run_pair(__file__, tmp_path / "meet", seconds=200)


def _worker(rank: int, meet: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    job = a_job(a_spec(stop=StopSpec(early_stopping_patience=2)))
    job = replace(job, where=Distribution(rank, 2, rank, 2))
    for replicated in (True, False):
        attempt = Attempt.begin(job)
        learner = RoundingLearner(rank)
        options = {"phase": Phase.LINEAR_PROBE, "epochs": 6, "trains_backbone": False, "replicated": replicated}
        fitted = fit(learner, job, attempt, **options)  # type: ignore[arg-type]
        assert (fitted.best_epoch, fitted.stop_reason) == (6, StopReason.EPOCHS)
    dist.destroy_process_group()


if __name__ == "__main__":
    _worker(int(sys.argv[1]), sys.argv[2])
