"""One step of FINE_TUNE with learned batch norm, of every base model that has stages."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import BatchNorm, FinetuneSpec, Strategy, UnfreezingSpec, Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.classification.network import GraftedNetwork
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.detection.families import build_detector
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.engine.layers import Layers
from enxerto.vision.torch.engine.steps import Stepper
from enxerto.vision.torch.learner import Learner, Stages
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.segmentation.construction import build_segmenter
from enxerto.vision.torch.weights import WeightsSources
from family_rows import Family, Run, rows

NOWHERE = WeightsSources(download=False)
SIDE = 64
LARGE, TOO_LARGE = 6e6, 45e6
"""Parameters: what takes a while, and what is a smaller network of the catalogue again, with more layers."""

LARGE_FAMILIES = ("vgg11_bn", "vit_b_16")
"""The smallest of families that are too large altogether."""

OTHERS_OF_TIMM = ("timm_mobilenetv3_small_050", "timm_regnetx_002", "timm_convnext_atto", "timm_vit_tiny_patch16_224")


@dataclass
class OneBatch:
    """What the engine must know of a network to make a step."""

    network: nn.Module
    stages_of: Callable[[], Stages]
    heads: Sequence[nn.Module]
    answer: Callable[[nn.Module, torch.Tensor], torch.Tensor]

    @property
    def stages(self) -> Stages:
        return self.stages_of()

    def loss(self, model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return self.answer(model, batch)


def family_params() -> list[Any]:
    others = [Family(get_facts(name), "", Run()) for name in OTHERS_OF_TIMM]
    params = []
    for family in [*rows(), *others]:
        size = family.facts.parameters
        if family.task is not Task.STYLE and (size < TOO_LARGE or family.facts.name in LARGE_FAMILIES):
            params.append(pytest.param(family, id=family.id, marks=[pytest.mark.slow] if size > LARGE else []))
    return params


def spec_of(family: Family, stages: int = 0) -> FinetuneSpec:
    return FinetuneSpec.with_defaults(
        family.facts.name,
        task=family.task,
        encoder=family.encoder,
        weights=Weights.NONE,
        strategy=Strategy.FINE_TUNE,
        image_size=family.run.image_size or SIDE,
        batch_norm=BatchNorm.LEARNED,
        unfreezing=UnfreezingSpec(stages=stages),
    )


def learner_of(family: Family) -> OneBatch:
    facts, spec = family.facts, spec_of(family)
    if facts.required_extra and importlib.util.find_spec(facts.required_extra) is None:
        pytest.skip(f"needs the extra {facts.required_extra}")
    if family.task is Task.DETECTION:
        detector = build_detector(spec, facts, 2, NOWHERE).detector
        target = {"boxes": torch.tensor([[5.0, 5, 40, 50]]), "labels": torch.tensor([1])}
        return OneBatch(detector, lambda: detector.stages, detector.heads, lambda model, one: model(one, [target] * 2))
    if family.task is Task.SEGMENTATION:
        segmenter = build_segmenter(spec, facts, 2, NOWHERE).network
        return OneBatch(segmenter, lambda: segmenter.stages, segmenter.heads, lambda model, one: model(one).main.mean())
    backbone, _ = build_backbone(facts.name, Weights.NONE, NOWHERE, image_size=spec.image_size)
    head = nn.Linear(backbone.feature_dim, 2)
    network = GraftedNetwork(backbone, head, facts.preprocess)
    return OneBatch(network, lambda: backbone.stages, [head], lambda model, one: model(one).mean())


def step(learner: OneBatch, spec: FinetuneSpec) -> None:
    job = Job(
        spec=spec,
        where=Distribution(),
        compute=Compute("cpu", None, 1),
        **dict.fromkeys(("facts", "manifest", "blobs", "sources")),  # type: ignore[arg-type]
    )
    made = cast(Learner, learner)
    stepper = Stepper(made, job, Layers(made, spec, trains_backbone=True), 1e-3, exchanges=False)
    stepper.prepare(1)
    stepper.accumulate(torch.rand(2, 3, spec.image_size, spec.image_size), of=1)


def statistics(module: nn.Module) -> list[torch.Tensor]:
    return [cast(torch.Tensor, one.running_mean).clone() for one in module.modules() if isinstance(one, _BatchNorm)]


@pytest.mark.parametrize("family", family_params())
def test_learning_stages_learn_their_statistics_and_frozen_ones_keep_them(family: Family) -> None:
    learner = learner_of(family)
    names = [name for name, _ in learner.stages]
    of_heads = {one for head in learner.heads for one in head.modules()}
    # Dropout and the like go with the statistics. Wrappers that are made for the occasion have no say.
    known = set(learner.network.modules()) - of_heads
    for learning in (len(names) // 2, len(names)):
        before = [statistics(stage) for _, stage in learner.stages]
        step(learner, spec_of(family, learning))
        frozen = len(names) - learning
        for index, (name, stage) in enumerate(learner.stages):
            now = statistics(stage)
            moved = [not torch.equal(one, other) for one, other in zip(before[index], now, strict=True)]
            assert moved == [index >= frozen] * len(now), name
            assert {one.training for one in known.intersection(stage.modules())} <= {index >= frozen}, name
