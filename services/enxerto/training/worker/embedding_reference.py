"""What a version's embeddings of its training images are like: what drift in production is measured against."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from enxerto.vision.contracts import EMBEDDING
from enxerto.vision.embeddings import EmbeddingReference, Embeddings, RunningMoments
from enxerto.vision.images import load, to_batch
from enxerto.vision.onnx.session import OnnxModel
from enxerto.vision.snapshots import read_samples
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.recipe import Job

REFERENCE_IMAGES: Final = 512
_BATCH: Final = 16


def measure_embeddings(job: Job, preprocess: PreprocessSpec, model: OnnxModel, held_out: Split) -> EmbeddingReference:
    """Embed training images and held-out ones, at most 512 of each, drawn with the seed, by the file that is served.

    Args:
        job: as it was trained.
        preprocess: as it is served.
        model: the exported file; it gives embeddings.
        held_out: the split that the version is measured on.
    """
    trained = _moments(job, preprocess, model, Split.TRAIN)
    reference = EmbeddingReference(trained.count, trained.mean, trained.variance)
    if held_out is Split.TRAIN:
        return reference
    others = _moments(job, preprocess, model, held_out)
    drift = reference.drift(others.mean, others.variance)
    return EmbeddingReference(trained.count, trained.mean, trained.variance, drift)


def _moments(job: Job, preprocess: PreprocessSpec, model: OnnxModel, split: Split) -> RunningMoments:
    (dimension,) = (one.shape[1] for one in model.card.outputs if one.name == EMBEDDING.name)
    moments = RunningMoments(dimension)
    for embeddings in _embedded(job, preprocess, model, split):
        moments.add(embeddings)
    return moments


def _embedded(job: Job, preprocess: PreprocessSpec, model: OnnxModel, split: Split) -> Iterator[Embeddings]:
    total = job.manifest.count(split)
    rows = np.random.default_rng(job.spec.seed).choice(total, min(REFERENCE_IMAGES, total), replace=False)
    wanted, done = set(rows.tolist()), 0
    pixels = []
    for row, sample in enumerate(read_samples(job.manifest, job.blobs, split)):
        if row not in wanted:
            continue
        pixels.append(load(sample.data, preprocess, job.limits))
        if len(pixels) == _BATCH or done + len(pixels) == len(wanted):
            yield model.run(to_batch(pixels), (EMBEDDING.name,))[EMBEDDING.name]
            done += len(pixels)
            pixels = []
            job.on_phase("evaluating", done, len(wanted))
