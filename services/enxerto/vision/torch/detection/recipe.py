"""How detection is trained and measured."""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from enxerto.kernel.errors import Violations
from enxerto.vision.images import Float32Images
from enxerto.vision.snapshots import read_samples
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.calibration import draw_images
from enxerto.vision.torch.detection.boxed_pictures import BoxedPictures, load_boxed
from enxerto.vision.torch.detection.detector import ServedDetector
from enxerto.vision.torch.detection.evaluation import evaluate_boxes
from enxerto.vision.torch.detection.families import BuiltDetector, build_detector
from enxerto.vision.torch.detection.learner import DetectionData, DetectionLearner
from enxerto.vision.torch.engine import Attempt, fit_heads_first
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES
from enxerto.vision.torch.recipe import Evaluation, Job, Predict, Trained

NO_WEIGHTS: Final = "none: random numbers from the seed"


class DetectionRecipe:
    """Faster R-CNN, RetinaNet, SSD, SSDLite, and the YOLO families of the extras."""

    task: Task = Task.DETECTION

    def train(self, job: Job) -> Trained:
        """Train pyramid and predictors, with FINE_TUNE then the backbone with them; choose operating thresholds.

        Raises:
            InvalidArgumentError: the spec does not fit the base model or the data.
            ExtraMissingError: the base model's packages are not installed.
            WeightsUnavailableError: no source has the pretrained weights.
        """
        spec, names = job.spec, job.manifest.class_names
        _validate(job)
        attempt = Attempt.begin(job)
        built = build_detector(spec, job.facts, len(names), job.sources)
        _check_stages(job, built)
        learner = DetectionLearner(
            built.detector, _load(job, built.preprocess), spec, where=job.where, compute=job.compute
        )
        fitted = fit_heads_first(learner, job, attempt)
        job.on_phase("choosing operating thresholds", 0, 0)
        thresholds = learner.thresholds()
        network, weights, preprocess = built.detector.cpu().eval(), built.weights, built.preprocess
        chosen = {name: round(float(value), 4) for name, value in zip(names, thresholds, strict=True)}
        return Trained(
            network=network,
            served=ServedDetector(network, thresholds, preprocess.height, preprocess.width).eval(),
            preprocess=preprocess,
            class_names=names,
            history=fitted.history,
            best=fitted.best_epoch - 1,
            stop_reason=fitted.stop_reason.value,
            weights_sha256="" if weights is None else weights.sha256,
            weights_source=NO_WEIGHTS if weights is None else weights.source,
            notes={**fitted.notes, "thresholds": json.dumps(chosen, ensure_ascii=False)},
        )

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        """COCO's metrics of a split, in picture pixels."""
        samples = read_samples(job.manifest, job.blobs, split)
        return evaluate_boxes(
            predict, samples, trained.preprocess, trained.class_names, job.limits, threads=job.compute.threads
        )

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        """(n, 3, H, W) float32 training images in [0, 1], at most `count`, drawn with the seed."""
        samples = read_samples(job.manifest, job.blobs, Split.TRAIN)
        total = job.manifest.count(Split.TRAIN)
        return draw_images(samples, total, count, preprocess, job.limits, seed=job.spec.seed)


def _validate(job: Job) -> None:
    violations = Violations()
    job.spec.validate(violations)
    manifest, workers = job.manifest, job.where.world_size
    if not manifest.class_names:
        violations.add("dataset", "needs at least one class")
    if manifest.count(Split.TRAIN) < workers or not manifest.count(Split.VAL):
        violations.add("dataset", "needs pictures in the training split for every worker, and in the validation split")
    if job.spec.batch_size < 2 * workers:
        violations.add("batch_size", "must be at least 2 for each worker: new layers have batch norm")
    violations.raise_if_any()


def _check_stages(job: Job, built: BuiltDetector) -> None:
    violations = Violations()
    names = [name for name, _ in built.detector.stages]
    if job.spec.unfreezing.stages > len(names):
        violations.add("unfreezing.stages", f"there are {len(names)} here: {', '.join(names)}")
    violations.raise_if_any()


def _load(job: Job, preprocess: PreprocessSpec) -> DetectionData:
    def load_part(split: Split) -> BoxedPictures:
        with job.keeping(split, 3 * preprocess.height * preprocess.width, MEMORY_BYTES):
            return load_boxed(
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

    return DetectionData(job.manifest.class_names, preprocess, load_part(Split.TRAIN), load_part(Split.VAL))
