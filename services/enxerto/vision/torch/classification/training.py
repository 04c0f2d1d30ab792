"""A classification run: probe, tuning, interpolation, calibration. See docs/transfer-recipes.md for the reasons."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from enxerto.vision.finetuning import AugmentPolicy, CheckpointSpec, FinetuneSpec
from enxerto.vision.specs import PreprocessSpec, Split
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.classification.augment import Augmentation
from enxerto.vision.torch.classification.features import FEATURE_BATCH, Labelled, compute_features
from enxerto.vision.torch.classification.images import Images, canvas_spec, keep
from enxerto.vision.torch.classification.interpolation import Candidate, choose, mix, score_between
from enxerto.vision.torch.classification.learners import FeatureLearner, ImageLearner, Sampler
from enxerto.vision.torch.classification.losses import make_loss
from enxerto.vision.torch.classification.network import ClassifierHead, GraftedNetwork, ServedClassifier
from enxerto.vision.torch.classification.preparation import (
    check_stages,
    class_counts,
    input_spec,
    probe_spec,
    source_of,
    validate,
)
from enxerto.vision.torch.classification.temperature import find_temperature
from enxerto.vision.torch.engine import Attempt, Before, Fitted, StopReason, TrainingDivergedError, fit, read_before
from enxerto.vision.torch.engine.state import score_from_json, score_to_json
from enxerto.vision.torch.pixel_arrays import MEMORY_BYTES
from enxerto.vision.torch.progress import EpochReport, OnStep, Phase, StepMeter
from enxerto.vision.torch.recipe import Job, Kept, Trained

_PROBE_CHECKPOINT_S: Final = 30.0

_TUNED_IMAGE: Final = 3.0
"""What tuning costs an image, by what its features cost: a backward pass takes about twice a forward one."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """What the last phase left in the network."""

    history: tuple[EpochReport, ...]
    best: int
    stop_reason: StopReason
    notes: Mapping[str, str]
    answers: Labelled
    """Logits and labels of the validation split."""


class ClassificationRun:
    """One worker's part of a run."""

    def __init__(self, job: Job) -> None:
        validate(job)
        job.compute.claim_threads()
        torch.manual_seed(job.spec.seed)
        self._job = job
        self._attempt = Attempt.begin(job)
        self._preprocess = input_spec(job)
        self._source = source_of(job)
        backbone, self._weights = build_backbone(
            job.spec.base_model, job.spec.weights, job.sources, seed=job.spec.seed, image_size=job.spec.image_size
        )
        check_stages(job.spec, len(backbone.stages))
        self._classes = len(job.manifest.class_names)
        self._head = ClassifierHead(backbone.feature_dim, self._classes, job.spec.head)
        network = GraftedNetwork(backbone, self._head, self._preprocess).requires_grad_(False).eval()
        # Depthwise convolutions on a CPU were 2 to 2.5 times faster with channels last.
        self._network = network.to(job.compute.device).to(memory_format=torch.channels_last)
        self._loss = make_loss(job.spec.loss, class_counts(job))

    def run(self) -> Trained:
        """All phases, or those that are left."""
        job = self._job
        stored = self._attempt.stored
        if stored is not None and stored.phase == Phase.FINE_TUNE.value:
            before = read_before(stored)
            self._head.load_state_dict(dict(before.tensors))
            return self._finished(self._tune(before))
        fitted, val = self._probe()
        if job.spec.tunes and fitted.stop_reason not in (StopReason.MAX_DURATION, StopReason.TARGET_SCORE):
            meta = {"score": score_to_json(fitted.best), "best": fitted.best_epoch - 1}
            before = Before(fitted.history, meta, copy.deepcopy(self._head.state_dict()))
            return self._finished(self._tune(before))
        with torch.no_grad():
            answers = self._head(val[0]), val[1]
        return self._finished(_Ended(fitted.history, fitted.best_epoch - 1, fitted.stop_reason, fitted.notes, answers))

    # --- the head on a frozen backbone ---

    def _probe(self) -> tuple[Fitted, Labelled]:
        """Every worker computes part of the features and trains the same head on all of them."""
        job, spec = self._job, probe_spec(self._job.spec)
        images = self._source.count(Split.TRAIN) + self._source.count(Split.VAL)
        meter, began = StepMeter(Phase.FEATURES, images, self._with_tuning(job.on_step)), time.perf_counter()
        train, val = (self._features(split, meter.add) for split in (Split.TRAIN, Split.VAL))
        tuning_s = self._tuning_s(images / (time.perf_counter() - began))
        self._head.calibrate(train[0])
        sampler = Sampler(train[1].cpu().numpy(), spec.sampling, spec.seed)
        if spec.augmentation.policy is AugmentPolicy.NONE:
            learner = FeatureLearner(self._head, lambda _: train, val, sampler, self._loss)
            job = replace(job, spec=_seldom_saved(spec), on_step=None)
        else:
            canvases = self._kept(Split.TRAIN, canvas_spec(self._preprocess))
            learner = FeatureLearner(self._head, self._varied(canvases, spec), val, sampler, self._loss)
            # The time goes into the features, which report their own progress.
            job = replace(job, spec=spec, on_step=None)
        fitted = fit(
            learner,
            job,
            self._attempt,
            phase=Phase.LINEAR_PROBE,
            epochs=spec.epochs,
            trains_backbone=False,
            ahead=lambda *_: tuning_s,
            replicated=True,
        )
        return fitted, val

    def _tuning_s(self, images_per_s: float) -> float:
        """Seconds that tuning may take, from this worker's rate of features. Its own first epoch replaces the guess."""
        if not self._job.spec.tunes:
            return 0.0
        train, val = self._source.count(Split.TRAIN), self._source.count(Split.VAL)
        return self._job.spec.epochs * (_TUNED_IMAGE * train + val) / max(images_per_s, 1e-9)

    def _with_tuning(self, on_step: OnStep | None) -> OnStep | None:
        """Reports of the pass over the images, with the time of all that follows but the probe's, which is short."""
        if on_step is None:
            return None
        return lambda report: on_step(replace(report, eta_s=report.eta_s + self._tuning_s(report.images_per_s)))

    def _features(self, split: Split, counted: Callable[[int], None]) -> Labelled:
        self._job.on_kept(Kept(split, 4 * self._network.backbone.feature_dim, features=True))
        return compute_features(
            self._network,
            self._source.stream(split, self._preprocess, FEATURE_BATCH),
            self._source.indices(split),
            self._job.manifest.count(split),
            where=self._job.where,
            compute=self._job.compute,
            counted=counted,
        )

    def _varied(self, canvases: Images, spec: FinetuneSpec) -> Callable[[int], Labelled]:
        augment, where = Augmentation(spec.augmentation, self._preprocess), self._job.where

        def features(epoch: int) -> Labelled:
            meter = StepMeter(Phase.LINEAR_PROBE, len(canvases), self._job.on_step)
            batches = (
                (augment(canvases.batch(rows), spec.seed, epoch, where.rank, int(rows[0])), canvases.labels[rows])
                for rows in np.split(np.arange(len(canvases)), range(FEATURE_BATCH, len(canvases), FEATURE_BATCH))
                if len(rows)
            )
            return compute_features(
                self._network,
                batches,
                self._source.indices(Split.TRAIN),
                canvases.total,
                where=where,
                compute=self._job.compute,
                counted=meter.add,
            )

        return features

    # --- the network ---

    def _tune(self, before: Before) -> _Ended:
        """From the probe's result, which stays a candidate, as do the points between it and what tuning ends with."""
        job, network = self._job, self._network
        probe_score = score_from_json(before.meta["score"])
        assert probe_score is not None
        learner = self._image_learner()
        probe = copy.deepcopy(network.state_dict())
        earlier, probe_best = tuple(before.history), int(before.meta["best"])
        notes = {"probe": f"{probe_score.value:.4f} of the validation split right before tuning"}
        try:
            # No `start`: the best tuned epoch is wanted even where it is below the probe, as one end of the line.
            fitted = fit(
                learner,
                job,
                self._attempt,
                phase=Phase.FINE_TUNE,
                epochs=job.spec.epochs,
                trains_backbone=True,
                before=before,
            )
        except TrainingDivergedError as error:
            network.load_state_dict(probe)
            network.requires_grad_(False).eval()
            notes["kept"] = f"the probe: {error}"
            return _Ended(earlier, probe_best, StopReason.EARLY_STOPPING, notes, learner.val_answers())
        tuned = copy.deepcopy(network.state_dict())
        ends = Candidate(0.0, probe_score), Candidate(1.0, fitted.best)
        between = score_between(learner, probe, tuned)
        kept = choose((ends[0], *between, ends[1]), job.manifest.count(Split.VAL))
        network.load_state_dict(mix(probe, tuned, kept.share))
        notes |= {**fitted.notes, "kept": f"{kept.share:.0%} of the way from the probe to what tuning ended with"}
        best = len(earlier) + fitted.best_epoch - 1 if kept.share > 0 else probe_best
        return _Ended((*earlier, *fitted.history), best, fitted.stop_reason, notes, learner.val_answers())

    def _image_learner(self) -> ImageLearner:
        job, spec = self._job, self._job.spec
        augment, decoded = None, self._preprocess
        if spec.augmentation.policy is not AugmentPolicy.NONE:
            augment, decoded = Augmentation(spec.augmentation, self._preprocess), canvas_spec(self._preprocess)
        job.on_phase("decoding images", 0, 0)
        train = self._kept(Split.TRAIN, decoded)
        val = self._kept(Split.VAL, self._preprocess)
        return ImageLearner(
            self._network,
            train,
            val,
            sampler=Sampler(train.labels, spec.sampling, spec.seed, job.where.rank),
            loss=self._loss,
            augment=augment,
            mixing=spec.augmentation,
            classes=self._classes,
            where=job.where,
            compute=job.compute,
        )

    def _kept(self, split: Split, spec: PreprocessSpec) -> Images:
        with self._job.keeping(split, 3 * spec.height * spec.width, MEMORY_BYTES):
            return keep(self._source, split, spec)

    # --- what comes of it ---

    def _finished(self, ended: _Ended) -> Trained:
        network = self._network.to("cpu").to(memory_format=torch.contiguous_format)
        network.requires_grad_(False).eval()
        temperature = find_temperature(*ended.answers)
        trained = Trained(
            network=network,
            served=ServedClassifier(network, temperature),
            preprocess=self._preprocess,
            class_names=self._job.manifest.class_names,
            history=ended.history,
            best=ended.best,
            stop_reason=ended.stop_reason.value,
            notes={**ended.notes, "temperature": f"{temperature:.6g}"},
        )
        if self._weights is None:
            return trained
        return replace(trained, weights_sha256=self._weights.sha256, weights_source=self._weights.source)


def _seldom_saved(spec: FinetuneSpec) -> FinetuneSpec:
    """An epoch on cached features takes less time than a checkpoint."""
    asked = spec.checkpoints.every_epochs > 0 or spec.checkpoints.every_s > 0
    every_s = max(spec.checkpoints.every_s, _PROBE_CHECKPOINT_S) if asked else 0.0
    return replace(spec, checkpoints=CheckpointSpec(every_epochs=0, every_s=every_s))
