"""A run is measured on a few images and scaled to all of them."""

import time
from dataclasses import replace

import pytest

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, Strategy, UnfreezingSpec, Weights
from enxerto.vision.images import Float32Images
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.specs import PreprocessSpec, Split, Task
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.estimate import estimate
from enxerto.vision.torch.progress import EpochReport, Phase, StepReport
from enxerto.vision.torch.recipe import Evaluation, Job, Kept, Predict, Trained
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.weights import WeightsSources

Digits = tuple[Manifest, FolderBlobs]


def _job(digits: Digits, spec: FinetuneSpec) -> Job:
    manifest, blobs = digits
    return Job(
        spec=spec,
        facts=get_facts(spec.base_model),
        manifest=manifest,
        blobs=blobs,
        sources=WeightsSources(download=False),
        where=Distribution(),
        compute=Compute("cpu", None, 1),
    )


IMAGE_BYTES, FEATURE_BYTES, MOST_BYTES = 10**6, 10**7, 10**9


def _of_many(digits: Digits, times: int) -> Digits:
    """The same images several times over."""
    manifest, blobs = digits
    return replace(manifest, shards=manifest.shards * times), blobs


class _Sleeping:
    """Takes 2 ms for a training image, 1 ms for a validation image and 4 ms for features of any."""

    task = Task.CLASSIFICATION

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def train(self, job: Job) -> Trained:
        self.jobs.append(job)
        train, val = job.manifest.count(Split.TRAIN), job.manifest.count(Split.VAL)
        assert job.on_step is not None
        for split, count in ((Split.TRAIN, train), (Split.VAL, val)):
            job.on_kept(Kept(split, IMAGE_BYTES, MOST_BYTES, 0.01 * count))
            job.on_kept(Kept(split, FEATURE_BYTES, features=True))
        job.on_step(StepReport(Phase.FEATURES, train + val, train + val, 250.0, 0.0))
        for epoch in range(1, job.spec.epochs + 1):
            time.sleep(0.002 * train + 0.001 * val)
            report = EpochReport(epoch, job.spec.epochs, Phase.FINE_TUNE, 1, 1, 1, {}, 0.1, 500.0, 0)
            job.on_epoch(report)
        return Trained(
            network=None, served=None, preprocess=job.facts.preprocess, class_names=("a",), history=(), best=-1,
            stop_reason="EPOCHS",
        )  # fmt: skip

    def evaluate(self, predict: Predict, job: Job, split: Split, trained: Trained) -> Evaluation:
        raise AssertionError("nothing is evaluated")

    def calibration_images(self, job: Job, preprocess: PreprocessSpec, count: int) -> Float32Images:
        raise AssertionError("nothing is calibrated")


def test_what_is_measured_is_scaled_by_images_epochs_and_workers(digits: Digits) -> None:
    spec = FinetuneSpec.with_defaults(strategy=Strategy.FINE_TUNE, batch_size=4, epochs=30)
    job = _job(digits, replace(spec, unfreezing=UnfreezingSpec(stages=2, epochs_per_stage=5)))
    train, val = (job.manifest.count(split) for split in (Split.TRAIN, Split.VAL))
    recipe = _Sleeping()
    alone = estimate(job, recipe)
    epoch_s = 0.002 * train + 0.001 * val
    assert alone.epoch_duration_s == pytest.approx(epoch_s, rel=0.5)
    assert alone.duration_s == pytest.approx(0.014 * (train + val) + 30 * epoch_s, rel=0.5)
    assert alone.images_per_second == pytest.approx(500, rel=0.05)
    assert alone.memory_bytes > 1e6
    assert (alone.gpu_memory_bytes, alone.device) == (0, "cpu, 1 threads")
    (measured,) = recipe.jobs
    assert measured.manifest.count(Split.TRAIN) < 40
    assert measured.spec.unfreezing == UnfreezingSpec(stages=2)
    two = estimate(job, recipe, workers=2)
    assert recipe.jobs[-1].spec.batch_size == 2
    assert two.images_per_second == pytest.approx(1000, rel=0.05)
    assert set(two.to_json()) == set(two.__dataclass_fields__)


def test_memory_and_decoding_grow_with_the_images(digits: Digits) -> None:
    recipe = _Sleeping()
    few, many = (_job(one, FinetuneSpec.with_defaults(epochs=1)) for one in (digits, _of_many(digits, 40)))
    train, val = (few.manifest.count(split) for split in (Split.TRAIN, Split.VAL))
    small, large = estimate(few, recipe), estimate(many, recipe)
    arrays = sum(min(40 * count * IMAGE_BYTES, MOST_BYTES) - count * IMAGE_BYTES for count in (train, val))
    more = arrays + 39 * (train + val) * FEATURE_BYTES
    assert large.memory_bytes - small.memory_bytes == pytest.approx(more, rel=0.1)
    assert large.duration_s == pytest.approx(40 * small.duration_s, rel=0.5)
    # Every worker has all features, and its part of the images.
    shared = estimate(many, recipe, workers=4).memory_bytes - small.memory_bytes
    assert shared == pytest.approx(39 * (train + val) * FEATURE_BYTES + MOST_BYTES, rel=0.1)


@pytest.mark.parametrize(
    ("strategy", "image_bytes"), [(Strategy.FEATURE_EXTRACTION, 1280 * 4), (Strategy.FINE_TUNE, 1280 * 4 + 3 * 64**2)]
)
def test_what_a_recipe_keeps_is_told(
    digits: Digits, strategy: Strategy, image_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process's peak grows by whatever else runs in it between two estimates.
    monkeypatch.setattr("enxerto.vision.torch.estimate._resident_peak_bytes", lambda: 0)
    spec = FinetuneSpec.with_defaults("efficientnet_lite0", weights=Weights.NONE, strategy=strategy, image_size=64)
    spec = replace(spec, epochs=1, batch_size=4, unfreezing=UnfreezingSpec(stages=1))
    few, many = (_job(one, spec) for one in (digits, _of_many(digits, 40)))
    recipe = get_recipe(Task.CLASSIFICATION)
    estimate(few, recipe)
    more = estimate(many, recipe).memory_bytes - estimate(few, recipe).memory_bytes
    images = sum(few.manifest.count(split) for split in (Split.TRAIN, Split.VAL))
    # Random crops are cut from a larger square.
    assert 0.9 * 39 * images * image_bytes < more < 1.5 * 39 * images * image_bytes


def test_a_real_recipe_is_estimated(digits: Digits) -> None:
    spec = FinetuneSpec.with_defaults(
        "efficientnet_lite0", weights=Weights.NONE, batch_size=4, epochs=100, image_size=32
    )
    found = estimate(_job(digits, spec), get_recipe(Task.CLASSIFICATION))
    assert found.duration_s > 100 * found.epoch_duration_s > 0
    assert found.measured_steps >= 5
