"""What a worker tells of its progress."""

import pytest

from enxerto.training.adapters.event_log import EventLogWriter, ObjectJobOutput
from enxerto.training.adapters.object_store import open_store
from enxerto.training.domain import EpochCompleted, Progress
from enxerto.training.worker.reporter import Reporter
from enxerto.vision.torch.progress import EpochReport, Phase, StepReport


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/objects")


async def told(store):
    return [event.body for event in await ObjectJobOutput(store).read_events("u1", 1, 0)]


def a_step(phase, eta_s):
    return StepReport(phase, 8, 16, 4.0, eta_s)


def an_epoch(phase, epoch, eta_s):
    return EpochReport(epoch, 2, phase, 0.1, 0.1, 0.9, {"accuracy": 0.9}, 1e-3, 4.0, eta_s)


async def test_steps_go_on_from_the_time_left_that_the_last_epoch_told(store):
    with Reporter(EventLogWriter(store, "u1", 1), 2) as reporter:
        reporter.step(a_step(Phase.TRAIN, 2.0))
        reporter.epoch(an_epoch(Phase.TRAIN, 1, 600.0))
        reporter.step(a_step(Phase.TRAIN, 2.0))
        reporter.epoch(an_epoch(Phase.TRAIN, 2, 0.0))
        reporter.step(a_step(Phase.FINE_TUNE, 2.0))
    first, second, third = (body for body in await told(store) if isinstance(body, Progress))
    assert first.eta_s is None
    assert 0 < second.eta_s < 600
    assert third.eta_s == 0


async def test_the_pass_over_the_images_knows_its_own_time(store):
    with Reporter(EventLogWriter(store, "u1", 1), 2) as reporter:
        reporter.step(a_step(Phase.FEATURES, 2.0))
    (only,) = await told(store)
    assert (only.phase, only.eta_s, only.images_done, only.images_per_second) == ("features", 2.0, 16, 8.0)


async def test_progress_is_told_the_less_often_the_longer_it_goes_on_but_phases_and_epochs_always(store):
    now = 0.0
    with Reporter(EventLogWriter(store, "u1", 1), 1, seconds=lambda: now) as reporter:

        def tells_for(seconds, phase):
            nonlocal now
            for _ in range(seconds * 2):
                now += 0.5
                reporter.step(a_step(phase, 2.0))

        tells_for(20, Phase.FEATURES)
        now = 36_000.0
        tells_for(60, Phase.LINEAR_PROBE)
        for epoch in (1, 2):
            reporter.epoch(an_epoch(Phase.LINEAR_PROBE, epoch, 600.0))
        reporter.phase("evaluating")
        reporter.phase("exporting")
    entries = await told(store)
    progress = [body.phase for body in entries if isinstance(body, Progress)]
    assert progress == ["features"] * 40 + ["head"] * 6 + ["evaluating", "exporting"]
    assert [body.progress.epoch for body in entries if isinstance(body, EpochCompleted)] == [1, 2]
