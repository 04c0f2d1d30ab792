"""How segmentation is trained and measured."""

from __future__ import annotations

from functools import partial
from typing import Final

from enxerto.kernel.errors import Violations
from enxerto.vision.images import Float32Images
from enxerto.vision.snapshots import read_samples
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.calibration import draw_images
from enxerto.vision.torch.engine import Attempt, fit_heads_first
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES
from enxerto.vision.torch.recipe import Evaluation, Job, Predict, Trained
from enxerto.vision.torch.segmentation.construction import build_segmenter
from enxerto.vision.torch.segmentation.evaluation import evaluate_masks
from enxerto.vision.torch.segmentation.learner import SegmentationData, SegmentationLearner
from enxerto.vision.torch.segmentation.masked_pictures import MaskedPictures, load_masked
from enxerto.vision.torch.segmentation.network import ServedSegmenter

_MAX_CLASSES: Final = 255
NO_WEIGHTS: Final = "none: random numbers from the seed"


class SegmentationRecipe:
    """U-Net, DeepLabV3, DeepLabV3+, FCN and LR-ASPP."""

    task: Task = Task.SEGMENTATION

    def train(self, job: Job) -> Trained:
        """Train the new layers, and with FINE_TUNE then the backbone with them.

        Raises:
            InvalidArgumentError: the spec does not fit the base model or the data.
            WeightsUnavailableError: no source has the pretrained weights.
        """
        _validate(job)
        attempt = Attempt.begin(job)
        spec, names = job.spec, job.manifest.class_names
        built = build_segmenter(spec, job.facts, len(names), job.sources)
        data = _load(job, built.preprocess)
        learner = SegmentationLearner(built.network, data, spec, where=job.where, compute=job.compute)
        fitted = fit_heads_first(learner, job, attempt)
        network = built.network.cpu().eval()
        weights = built.weights
        return Trained(
            network=network,
            served=ServedSegmenter(network).eval(),
            preprocess=built.preprocess,
            class_names=names,
            history=fitted.history,
            best=fitted.best_epoch - 1,
            stop_reason=fitted.stop_reason.value,
            weights_sha256="" if weights is None else weights.sha256,
            weights_source=NO_WEIGHTS if weights is None else weights.source,
            notes={**fitted.notes, "loss": "cross entropy or focal loss + Dice, one to one"},
        )

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        """mIoU, Dice and pixel accuracy of a split, at the pictures' own size."""
        samples = read_samples(job.manifest, job.blobs, split)
        return evaluate_masks(predict, samples, trained.preprocess, trained.class_names, job.limits)

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        """(n, 3, H, W) float32 training images in [0, 1], at most `count`, drawn with the seed."""
        samples = read_samples(job.manifest, job.blobs, Split.TRAIN)
        total = job.manifest.count(Split.TRAIN)
        return draw_images(samples, total, count, preprocess, job.limits, seed=job.spec.seed)


def _validate(job: Job) -> None:
    violations = Violations()
    job.spec.validate(violations)
    names, manifest = job.manifest.class_names, job.manifest
    if not 2 <= len(names) <= _MAX_CLASSES:
        violations.add("dataset", f"segmentation needs 2 to {_MAX_CLASSES} classes, there are {len(names)}")
    if not manifest.count(Split.TRAIN) or not manifest.count(Split.VAL):
        violations.add("dataset", "needs pictures in both the training and the validation split")
    if job.spec.batch_size < 2 * job.where.world_size:
        violations.add("batch_size", "must be at least 2 for each worker: new layers have batch norm")
    violations.raise_if_any()


def _load(job: Job, preprocess: PreprocessSpec) -> SegmentationData:
    def load_part(split: Split) -> MaskedPictures:
        with job.keeping(split, 4 * preprocess.height * preprocess.width, MEMORY_BYTES):
            return load_masked(
                job.manifest,
                job.blobs,
                split,
                preprocess,
                rank=job.where.rank,
                world_size=job.where.world_size,
                limits=job.limits,
                threads=job.compute.threads,
                progress=partial(job.on_phase, "decoding pictures"),
            )

    return SegmentationData(job.manifest.class_names, preprocess, load_part(Split.TRAIN), load_part(Split.VAL))
