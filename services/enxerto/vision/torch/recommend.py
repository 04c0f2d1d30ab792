"""Which base model suits a data set: how well its frozen features tell the classes apart, and what they cost."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from enxerto.kernel.errors import EnxertoError, InvalidArgumentError, Violation
from enxerto.vision.blobs import BlobSource, FolderBlobs
from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.images import DEFAULT_LIMITS, ImageLimits
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import Split
from enxerto.vision.subsets import write_subset
from enxerto.vision.torch.base_models import build_backbone, preprocess_of
from enxerto.vision.torch.classification.features import FEATURE_BATCH, Labelled, to_unit
from enxerto.vision.torch.classification.images import Source, as_batch
from enxerto.vision.torch.classification.network import GraftedNetwork
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.weights import WeightsSources

NEIGHBOURS: Final = 10

_ROUNDING: Final = 1e-9
_TEMPERATURE: Final = 0.07
"""Of the neighbours' votes (Wu et al. 2018, arXiv:1805.01978, section 3.4)."""

_PROBE_STEPS: Final = 100
_BLOCK: Final = 1024

SourcesOf = Callable[[str], AbstractContextManager[WeightsSources]]
"""Where a base model's weights may come from, for as long as they are read."""


@dataclass(frozen=True, slots=True)
class RankedModel:
    """How a base model did.

    Attributes:
        base_model: name in the catalogue.
        probe_accuracy: of a linear probe on the validation images, in [0, 1].
        knn_accuracy: of the 10 nearest neighbours, in [0, 1].
        time_per_image_s: through the backbone, in batches of 32.
        parameter_count: of the backbone.
    """

    base_model: str
    probe_accuracy: float
    knn_accuracy: float
    time_per_image_s: float
    parameter_count: int

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "base_model": self.base_model,
            "probe_accuracy": self.probe_accuracy,
            "knn_accuracy": self.knn_accuracy,
            "time_per_image_s": self.time_per_image_s,
            "parameter_count": self.parameter_count,
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """Base models, best first.

    Attributes:
        scores: those that were probed.
        skipped: why others could not be, by name.
    """

    scores: tuple[RankedModel, ...]
    skipped: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {"scores": [one.to_json() for one in self.scores], "skipped": dict(self.skipped)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """What base models are probed on.

    Attributes:
        manifest: of a snapshot for CLASSIFICATION.
        blobs: where its shards are.
        sources: of pretrained weights, by base model.
        compute: device, precision and threads.
        limits: of an image.
        max_images: of both splits together; a stratified sample when there are more.
        on_progress: told (images done, images in all) over all base models; may raise to cancel.
    """

    manifest: Manifest
    blobs: BlobSource
    sources: SourcesOf
    compute: Compute
    limits: ImageLimits = DEFAULT_LIMITS
    max_images: int = 2000
    on_progress: Callable[[int, int], None] = field(default=lambda _done, _total: None)


def recommend(names: Sequence[str], probing: Probing) -> Ranking:
    """Probe each base model's pretrained features and rank them.

    The best accuracy comes first, and within one standard error of it, or one image, the faster one.

    Raises:
        InvalidArgumentError: a split is empty, or there are fewer than two classes.
        DataLossError: the snapshot is damaged.
    """
    manifest = probing.manifest
    counts = {split: manifest.count(split) for split in (Split.TRAIN, Split.VAL)}
    if min(counts.values()) == 0 or len(manifest.class_names) < 2:
        text = "needs two classes, and images in both the training and the validation split"
        raise InvalidArgumentError([Violation("snapshot", text)])
    share = min(1.0, probing.max_images / sum(counts.values()))
    most = {split: max(1, round(count * share)) for split, count in counts.items()}
    probing.compute.claim_threads()
    scores: list[RankedModel] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="enxerto-probe-") as scratch:
        blobs = FolderBlobs(Path(scratch))
        subset = write_subset(manifest, probing.blobs, blobs, most)
        source = Source(subset, blobs, Distribution(), probing.limits, probing.compute.threads)
        images = subset.count(Split.TRAIN) + subset.count(Split.VAL)
        for index, name in enumerate(dict.fromkeys(names)):
            meter = _Meter(probing.on_progress, index * images, len(dict.fromkeys(names)) * images)
            try:
                scores.append(_probe(name, source, probing, meter))
            except EnxertoError as error:
                skipped[name] = str(error).partition("\n")[0].rstrip(":")
    return Ranking(tuple(rank(scores, subset.count(Split.VAL))), skipped)


def rank(scores: Iterable[RankedModel], images: int) -> Iterator[RankedModel]:
    """Best first: those within one standard error, or one image, of the best that is left come together, fastest first.

    Args:
        scores: in any order.
        images: that the accuracies were measured on.
    """
    left = sorted(scores, key=lambda one: -one.probe_accuracy)
    while left:
        best = left[0].probe_accuracy
        # Without a single mistake the estimate is 0, and one image would outweigh any cost.
        error = max(math.sqrt(best * (1 - best) / images), 1 / images)
        close = [one for one in left if one.probe_accuracy >= best - error - _ROUNDING]
        yield from sorted(close, key=lambda one: (one.time_per_image_s, one.parameter_count))
        left = left[len(close) :]


class _Meter:
    def __init__(self, told: Callable[[int, int], None], before: int, total: int) -> None:
        self._told, self._done, self._total = told, before, total

    def add(self, images: int) -> None:
        self._done += images
        self._told(self._done, self._total)


def _probe(name: str, source: Source, probing: Probing, meter: _Meter) -> RankedModel:
    facts = get_facts(name)
    spec = FinetuneSpec.with_defaults(name)
    with probing.sources(name) as sources:
        backbone, _ = build_backbone(name, Weights.PRETRAINED, sources)
    network = GraftedNetwork(backbone, nn.Identity(), preprocess_of(facts, spec)).requires_grad_(False).eval()
    network = network.to(probing.compute.device).to(memory_format=torch.channels_last)
    clock = _Clock(probing.compute)
    train, val = (
        _features(network, source, split, preprocess=preprocess_of(facts, spec), clock=clock, meter=meter)
        for split in (Split.TRAIN, Split.VAL)
    )
    return RankedModel(
        base_model=name,
        probe_accuracy=probe_accuracy(train, val),
        knn_accuracy=knn_accuracy(train, val),
        time_per_image_s=clock.seconds_per_image,
        parameter_count=sum(parameter.numel() for parameter in backbone.parameters()),
    )


class _Clock:
    """Times batches on the device; the first one, which warms up, only when there is no other."""

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self._batches: list[tuple[float, int]] = []

    def run(self, network: GraftedNetwork, images: torch.Tensor) -> torch.Tensor:
        began = self._now()
        features = network.features(images)
        self._batches.append((self._now() - began, len(images)))
        return features

    @property
    def seconds_per_image(self) -> float:
        counted = self._batches[1:] or self._batches
        return sum(seconds for seconds, _ in counted) / sum(images for _, images in counted)

    def _now(self) -> float:
        if self.compute.device.startswith("cuda"):
            torch.cuda.synchronize(self.compute.device)
        return time.perf_counter()


def _features(
    network: GraftedNetwork, source: Source, split: Split, *, preprocess: Any, clock: _Clock, meter: _Meter
) -> Labelled:
    parts: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    with torch.inference_mode(), clock.compute.autocast():
        for pixels, part in source.stream(split, preprocess, FEATURE_BATCH):
            parts.append(clock.run(network, to_unit(as_batch(pixels), clock.compute)).float())
            labels.append(torch.from_numpy(part).to(clock.compute.device))
            meter.add(len(part))
    # Plain copies: tensors made in inference mode cannot take part in training.
    return torch.cat(parts).clone(), torch.cat(labels).clone()


def knn_accuracy(train: Labelled, val: Labelled) -> float:
    """Accuracy of the 10 nearest neighbours by cosine; votes weigh by similarity. Features (N, D), labels (N,)."""
    classes = int(torch.cat((train[1], val[1])).max()) + 1
    known = functional.normalize(train[0], dim=1)
    right = 0
    for start in range(0, len(val[0]), _BLOCK):
        asked = functional.normalize(val[0][start : start + _BLOCK], dim=1)
        similarity, nearest = (asked @ known.T).topk(min(NEIGHBOURS, len(known)), dim=1)
        votes = functional.one_hot(train[1][nearest], classes) * (similarity / _TEMPERATURE).exp().unsqueeze(2)
        right += int((votes.sum(1).argmax(1) == val[1][start : start + _BLOCK]).sum())
    return right / len(val[0])


def probe_accuracy(train: Labelled, val: Labelled) -> float:
    """Accuracy of a logistic regression on centred features of unit size. Features (N, D), labels (N,).

    L-BFGS to convergence, with the L2 penalty of 1 / N that is scikit-learn's default.
    """
    features, labels = train
    classes = int(torch.cat((labels, val[1])).max()) + 1
    variance, mean = torch.var_mean(features, dim=0, correction=0)
    scale = variance.mean().sqrt().clamp_min(1e-12).reciprocal()
    inputs = (features - mean) * scale
    weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(classes, device=features.device, requires_grad=True)
    optimizer: Any = torch.optim.LBFGS([weight, bias], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(functional.linear(inputs, weight, bias), labels)
        loss = loss + weight.square().sum() / (2 * len(labels))
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        logits = functional.linear((val[0] - mean) * scale, weight, bias)
        return int((logits.argmax(1) == val[1]).sum()) / len(val[1])
