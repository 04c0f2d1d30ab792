"""A worker that dies in the middle of a run is replaced, and the run goes on from its last checkpoint."""

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from enxerto.training.domain import CheckpointSaved, EpochCompleted, JobEvent, JobStarted, JobTrained
from enxerto.training.worker.order import JobOrder
from enxerto.vision.finetuning import StopSpec, Strategy
from training_stack import Ray, eventually
from worker_orders import draw_classes, read_log, read_result, small_spec, write_order

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]
EPOCHS = 15


def submit(ray: Ray, order: JobOrder) -> None:
    """Start the order's job as the service does."""
    command = [sys.executable, "-m", "enxerto.training.worker", "--blob-url", order.blob_url, "--uid", order.uid]
    command += ["--attempt", str(order.attempt), "--cache-folder", str(order.cache_folder), "--no-weights-download"]
    ray.call("/api/jobs/", {"submission_id": f"{order.uid}-{order.attempt}", "entrypoint": shlex.join(command)})


def log_of(order: JobOrder) -> list[JobEvent]:
    return asyncio.run(read_log(order))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_goes_on_when_a_worker_is_killed(ray: Ray, tmp_path: Path, workers: int) -> None:
    spec = small_spec(strategy=Strategy.FINE_TUNE, epochs=EPOCHS, stop=StopSpec(early_stopping_patience=0))
    data = draw_classes(tmp_path / "data", each=16)
    order = write_order(tmp_path, data, spec, uid=f"killed{workers}", num_workers=workers)
    submit(ray, order)

    def two_epochs_saved() -> bool | None:
        saved = [one.body for one in log_of(order) if isinstance(one.body, CheckpointSaved)]
        return True if any(one.phase == "fine-tuning" and one.epoch >= 2 for one in saved) else None

    eventually(two_epochs_saved, 300, 0.2)
    victims = ray.train_workers()
    assert len(victims) == workers
    victims[-1].kill()

    def trained() -> bool | None:
        return True if isinstance(log_of(order)[-1].body, JobTrained) else None

    eventually(trained, 300, 0.5)
    bodies = [one.body for one in log_of(order)]
    assert sum(isinstance(one, JobStarted) for one in bodies) == 2
    restart = max(place for place, one in enumerate(bodies) if isinstance(one, JobStarted))
    tuned = [(place, one.progress.epoch) for place, one in enumerate(bodies)
             if isinstance(one, EpochCompleted) and one.progress.phase == "fine-tuning"]  # fmt: skip
    before = [epoch for place, epoch in tuned if place < restart]
    after = [epoch for place, epoch in tuned if place > restart]
    assert before[0] == 1
    # The epoch whose checkpoint was not whole yet is done again, and no other.
    assert after[0] in (before[-1], before[-1] + 1)
    assert after == list(range(after[0], EPOCHS + 1))
    result = asyncio.run(read_result(order))
    assert result.stop_reason == "EPOCHS"
    assert result.parity is not None
    assert result.parity.agreement >= 0.999
