"""How STYLE is trained and measured."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import torch

from enxerto.kernel.errors import Violations
from enxerto.vision.images import Float32Images, UInt8Image
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.calibration import draw_images
from enxerto.vision.torch.engine import Attempt, fit
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES
from enxerto.vision.torch.progress import Phase
from enxerto.vision.torch.recipe import Evaluation, Job, Predict, Trained
from enxerto.vision.torch.style.evaluation import answered, evaluate_pictures, write_pictures, written
from enxerto.vision.torch.style.gatys import GatysRun
from enxerto.vision.torch.style.learner import StyleLearner
from enxerto.vision.torch.style.objective import (
    Objective,
    build_loss_network,
    build_objective,
    served_preprocess,
)
from enxerto.vision.torch.style.pictures import (
    ContentPictures,
    count_contents,
    load_contents,
    load_style,
    read_contents,
    training_square,
)
from enxerto.vision.torch.style.transformer import TransformerNetwork
from enxerto.vision.torch.weights import LoadedWeights

NO_WEIGHTS: Final = "none: random numbers from the seed"
_NAMES: Final = ("content", "style")


class StyleRecipe:
    """Fast style transfer, and Gatys' optimisation.

    The pretrained network only measures and never learns, so FEATURE_EXTRACTION and FINE_TUNE do the same.
    """

    task: Task = Task.STYLE

    def train(self, job: Job) -> Trained:
        """Train a transformer network on the TRAIN pictures, or with Gatys optimise every content picture.

        Raises:
            InvalidArgumentError: the spec does not fit the base model or the data.
            WeightsUnavailableError: no source has the pretrained weights.
        """
        _validate(job)
        return _optimise(job) if job.spec.paints_pictures else _train(job)

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        """Losses and SSIM of a split's pictures, at the size that serving gives them.

        Of Gatys, what was measured when the pictures were made; `predict` is not called.
        """
        preprocess = trained.preprocess
        style = load_style(job.manifest, job.blobs, preprocess, job.limits)
        samples = read_contents(job.manifest, job.blobs, split)
        if job.spec.paints_pictures:
            return evaluate_pictures(written(trained.files, samples, split, preprocess, job.limits), style)
        objective, _ = _objective(job, _training_style(job, preprocess), "cpu")
        return evaluate_pictures(answered(predict, samples, preprocess, objective, job.limits), style)

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        """(n, 3, side, side) float32 squares of TRAIN's content pictures in [0, 1], at most `count`, drawn with the
        seed."""
        square = training_square(preprocess)
        total = count_contents(job.manifest, job.blobs, Split.TRAIN)
        samples = read_contents(job.manifest, job.blobs, Split.TRAIN)
        return draw_images(samples, total, count, square, job.limits, seed=job.spec.seed)


def _validate(job: Job) -> None:
    violations = Violations()
    job.spec.validate(violations)
    missing = [
        split.value.lower()
        for split in (Split.TRAIN, Split.VAL)
        # Every worker needs a picture of its own.
        if len(list(islice(read_contents(job.manifest, job.blobs, split), job.where.world_size)))
        < (job.where.world_size if split is Split.TRAIN else 1)
    ]
    if missing and not job.spec.paints_pictures:
        violations.add("dataset", f"needs content pictures in the splits {' and '.join(missing)}")
    violations.raise_if_any()


def _train(job: Job) -> Trained:
    attempt = Attempt.begin(job)
    preprocess = served_preprocess(job.spec, job.facts)
    objective, weights = _objective(job, _training_style(job, preprocess), job.compute.device)
    job.on_phase("decoding pictures", 0, 0)
    square = training_square(preprocess)

    def load_part(split: Split) -> ContentPictures:
        with job.keeping(split, 3 * square.height * square.width, MEMORY_BYTES):
            return load_contents(
                job.manifest,
                job.blobs,
                split,
                square,
                rank=job.where.rank,
                world_size=job.where.world_size,
                limits=job.limits,
                threads=job.compute.threads,
            )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.spec.seed)
        network = TransformerNetwork()
    learner = StyleLearner(
        network, objective, load_part(Split.TRAIN), load_part(Split.VAL), job.spec, where=job.where, compute=job.compute
    )
    fitted = fit(learner, _of_scores(job), attempt, phase=Phase.TRAIN, epochs=job.spec.epochs, trains_backbone=False)
    network = network.cpu().eval()
    notes = {name: text for name, text in fitted.notes.items() if name != "batch_norm"}
    return Trained(
        network=network,
        served=network,
        preprocess=preprocess,
        class_names=_NAMES,
        history=fitted.history,
        best=fitted.best_epoch - 1,
        stop_reason=fitted.stop_reason.value,
        weights_sha256="" if weights is None else weights.sha256,
        weights_source=NO_WEIGHTS if weights is None else weights.source,
        notes={**notes, **_weights(objective)},
    )


def _of_scores(job: Job) -> Job:
    """The job as the engine takes it: with minus the loss that is good enough, for more of a score is better."""
    stop = job.spec.stop
    if stop.target_score is None:
        return job
    return replace(job, spec=replace(job.spec, stop=replace(stop, target_score=-stop.target_score)))


def _optimise(job: Job) -> Trained:
    preprocess = served_preprocess(job.spec, job.facts)
    style = load_style(job.manifest, job.blobs, preprocess, job.limits)
    objective, weights = _objective(job, style, job.compute.device)
    optimised = GatysRun(job, objective, preprocess).run()
    folder = Path(tempfile.mkdtemp(prefix="enxerto-style-"))
    # The worker stores the files after training; they go with its process.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Trained(
        network=None,
        served=None,
        preprocess=preprocess,
        class_names=_NAMES,
        history=optimised.history,
        best=-1,
        stop_reason=optimised.stop_reason.value,
        weights_sha256="" if weights is None else weights.sha256,
        weights_source=NO_WEIGHTS if weights is None else weights.source,
        notes={**_weights(objective), "pictures": str(len(optimised.pictures)), "optimizer": "Adam, 0.02 a step"},
        files=write_pictures(optimised.pictures, folder),
    )


def _objective(job: Job, style: UInt8Image, device: str) -> tuple[Objective, LoadedWeights | None]:
    network, weights = build_loss_network(job.spec, job.facts, job.sources)
    return build_objective(job.spec, network, style, device), weights


def _training_style(job: Job, preprocess: PreprocessSpec) -> UInt8Image:
    """The style picture at the size of the training pictures, so that its strokes have the size that is learned."""
    square = training_square(preprocess)
    fit_square = replace(square, resize=preprocess.resize)
    return load_style(job.manifest, job.blobs, fit_square, job.limits)


def _weights(objective: Objective) -> dict[str, str]:
    return {
        "content_weight": f"{objective.content_weight:g}",
        "style_weight": f"{objective.style_weight:g}",
        "total_variation_weight": f"{objective.variation_weight:g}",
    }
