"""Values of the training domain for tests."""

from enxerto.kernel.names import BaseModelName, ModelName, RunName, SnapshotName, SweepName
from enxerto.training.domain import (
    Choice,
    Lineage,
    Metric,
    NumberRange,
    Parity,
    ResultArtifact,
    RunSpec,
    SnapshotContent,
    Sweep,
    SweepParameter,
    SweepPlan,
    TrainingResult,
    TrainingRun,
)
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.specs import LabelMap, PreprocessSpec, TensorSpec
from fakes.training_stores import START


def a_run(run: str = "run-a", uid: str = "u1") -> TrainingRun:
    """A run that was just accepted."""
    return TrainingRun(
        name=RunName("default", run),
        uid=uid,
        spec=RunSpec(
            snapshot=SnapshotName("default", "digits", 1),
            base_model=BaseModelName("efficientnet-lite0"),
            model=ModelName("default", "digits"),
            finetune=FinetuneSpec.with_defaults("efficientnet_lite0"),
            num_workers=2,
        ),
        labels={"team": "optics"},
        create_time=START,
        update_time=START,
    )


def some_content() -> SnapshotContent:
    """What an import stored."""
    return SnapshotContent(
        digest="ab" * 32,
        manifest_sha256="cd" * 32,
        class_names=("cat", "dog"),
        split_counts={"train": 8, "val": 2, "test": 2},
        size_bytes=1234,
    )


def a_result(agreement: float = 1.0) -> TrainingResult:
    """What a job left behind."""
    return TrainingResult(
        artifacts=(ResultArtifact("model.onnx", "MODEL", "ef" * 32, 10, "application/octet-stream"),),
        label_map=LabelMap(("cat", "dog")),
        preprocess=PreprocessSpec(224, 224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        inputs=(TensorSpec("images", "FP32", (-1, 3, 224, 224)),),
        outputs=(TensorSpec("probabilities", "FP32", (-1, 2)),),
        metrics=(Metric("accuracy", 0.9, "test"),),
        parity=Parity(1e-6, agreement, 20, (1, 2, 8)),
        lineage=Lineage("ab" * 32, "12" * 32, "package:x", "Apache-2.0"),
        stop_reason="EPOCHS",
    )


def a_sweep() -> Sweep:
    """A sweep that was just accepted."""
    return Sweep(
        name=SweepName("default", "better"),
        uid="s1",
        plan=SweepPlan(
            template=b"\x0a\x00",
            spec=a_run().spec,
            parameters=(
                SweepParameter("learning_rate", NumberRange(1e-4, 1e-1, log=True, whole=False)),
                SweepParameter("optimizer", Choice(("OPTIMIZER_ADAMW", "OPTIMIZER_SGD"))),
            ),
            max_trials=3,
            max_parallel_trials=2,
            pruning_grace_epochs=1,
            seed=7,
        ),
        labels={"team": "optics"},
        create_time=START,
        update_time=START,
    )
