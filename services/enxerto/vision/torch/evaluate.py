"""Answers of a trained network on a split, and their metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from enxerto.vision.metrics import ClassificationMetrics, classification_metrics
from enxerto.vision.torch.collectives import Distribution, gather_rows
from enxerto.vision.torch.data import ImageArray
from enxerto.vision.torch.devices import Compute, choose_compute, detect
from enxerto.vision.torch.finetune import to_unit
from enxerto.vision.torch.network import GraftedNetwork

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Of a whole split, in order of path.

    Attributes:
        probabilities: (N, classes), float32.
        labels: (N,), int64, the truth.
        metrics: of the most probable classes.
    """

    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    metrics: ClassificationMetrics


def evaluate(
    network: GraftedNetwork,
    images: ImageArray,
    classes: int,
    *,
    distribution: Distribution | None = None,
    compute: Compute | None = None,
) -> Evaluation:
    """Predict a split; every worker predicts its part and returns the whole.

    Raises:
        ValueError: the split is empty.
    """
    where = distribution or Distribution()
    how = compute or choose_compute(detect(), workers_per_machine=where.local_world_size, local_rank=where.local_rank)
    network.eval().to(how.device)
    parts = [torch.empty(0, classes, device=how.device)]
    with torch.inference_mode(), how.autocast():
        for start in range(0, len(images), _BATCH):
            logits = network(to_unit(images.batch(slice(start, start + _BATCH)), how))
            parts.append(logits.float().softmax(dim=1))
    indices = torch.from_numpy(images.indices).to(how.device)
    labels = torch.from_numpy(images.labels).to(how.device)
    probabilities = gather_rows(torch.cat(parts).clone(), indices, images.total, where).cpu().numpy()
    truth = gather_rows(labels, indices, images.total, where).cpu().numpy()
    metrics = classification_metrics(truth, probabilities.argmax(axis=1), classes)
    return Evaluation(probabilities, truth, metrics)
