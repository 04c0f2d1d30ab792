"""What a classification job means before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import torch

from enxerto.kernel.errors import InvalidArgumentError, Violation, Violations
from enxerto.vision.finetuning import FinetuneSpec, Strategy
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.base_models import preprocess_of
from enxerto.vision.torch.classification.images import Source
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.recipe import Job


def input_spec(job: Job) -> PreprocessSpec:
    """How pictures become the network's input: as the base model says, at the size that the run asks for."""
    return preprocess_of(job.facts, job.spec)


def source_of(job: Job, where: Distribution | None = None) -> Source:
    """This worker's images, or those of another place."""
    return Source(job.manifest, job.blobs, where or job.where, job.limits, job.compute.threads)


def class_counts(job: Job) -> torch.Tensor:
    """(classes,), training images of each class."""
    return torch.tensor([one.count(Split.TRAIN) for one in job.manifest.statistics.classes])


def probe_spec(spec: FinetuneSpec) -> FinetuneSpec:
    """How the head is trained on the frozen backbone: as asked, or before fine-tuning as FEATURE_EXTRACTION would.

    Fine-tuning's own learning rate and epochs say nothing about a head on cached features.
    """
    if not spec.tunes:
        return spec
    usual = FinetuneSpec.with_defaults(spec.base_model, strategy=Strategy.FEATURE_EXTRACTION)
    stop = replace(usual.stop, max_duration_s=spec.stop.max_duration_s, target_score=spec.stop.target_score)
    return replace(
        usual,
        weights=spec.weights,
        image_size=spec.image_size,
        precision=spec.precision,
        sampling=spec.sampling,
        seed=spec.seed,
        head=spec.head,
        loss=spec.loss,
        stop=stop,
        checkpoints=spec.checkpoints,
    )


def validate(job: Job) -> None:
    """Refuse what cannot be trained, all reasons at once.

    Raises:
        InvalidArgumentError: the spec is bad, a split is empty, or there are fewer than two classes.
    """
    violations = Violations()
    job.spec.validate(violations)
    if not (job.manifest.count(Split.TRAIN) and job.manifest.count(Split.VAL)):
        violations.add("dataset", "needs images in both the training and the validation split")
    if len(job.manifest.class_names) < 2:
        violations.add("dataset", "needs at least two classes")
    violations.raise_if_any()


def check_stages(spec: FinetuneSpec, stages: int) -> None:
    """Raises InvalidArgumentError when more stages shall learn than there are."""
    if spec.unfreezing.stages > stages:
        raise InvalidArgumentError([Violation("unfreezing.stages", f"{spec.base_model} has {stages} stages")])
