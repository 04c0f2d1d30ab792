import pytest

from enxerto.registry.domain import Lineage, Parity, State, VersionContent
from enxerto.vision.specs import LabelMap, PreprocessSpec, Task

PREPROCESS = PreprocessSpec(8, 8, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("task", "agreement", "state"),
    [
        (Task.CLASSIFICATION, 0.999, State.READY),
        (Task.CLASSIFICATION, 0.9989, State.QUARANTINED),
        (Task.DETECTION, 0.99, State.READY),
        (Task.DETECTION, 0.9899, State.QUARANTINED),
        (Task.SEGMENTATION, 0.99, State.READY),
        (Task.STYLE, 0.5, State.QUARANTINED),
    ],
)
def test_every_task_has_its_gate(task: Task, agreement: float, state: State) -> None:
    content = VersionContent(
        (), LabelMap(("a",)), PREPROCESS, (), (), Lineage(), parity=Parity(0.0, agreement, 8, (1, 2, 8))
    )
    assert content.state(task) is state


def test_a_version_that_was_not_compared_is_ready() -> None:
    content = VersionContent((), LabelMap(("a",)), PREPROCESS, (), (), Lineage())
    assert content.state(Task.CLASSIFICATION) is State.READY
