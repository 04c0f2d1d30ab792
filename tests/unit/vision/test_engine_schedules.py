import pytest

from enxerto.vision.finetuning import Schedule
from enxerto.vision.torch.engine.schedules import make_schedule


def test_the_cosine_warms_up_and_ends_at_nothing() -> None:
    factor = make_schedule(Schedule.COSINE, 100, 0.1)
    assert [factor(0), factor(9), factor(10)] == pytest.approx([0.1, 1.0, 1.0])
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0.0)
    assert make_schedule(Schedule.COSINE, 10, 0.0)(0) == 1.0


def test_the_other_schedules() -> None:
    linear = make_schedule(Schedule.LINEAR, 100, 0.0)
    assert [linear(0), linear(25), linear(100)] == pytest.approx([1, 0.75, 0])
    step = make_schedule(Schedule.STEP, 90, 0.0)
    assert [step(59), step(60), step(79), step(80)] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert {make_schedule(Schedule.CONSTANT, 10, 0.0)(step) for step in range(10)} == {1.0}
    cycle = make_schedule(Schedule.ONE_CYCLE, 100, 0.1)
    assert [cycle(0), cycle(30), cycle(100)] == pytest.approx([1 / 25, 1.0, 1e-4])
    assert max(cycle(step) for step in range(101)) == cycle(30)
