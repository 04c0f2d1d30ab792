"""Graft a new head onto a pretrained network, and fine-tune the network if asked. Plain torch; knows nothing of Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from enxerto.kernel.errors import InvalidArgumentError, Violation, Violations
from enxerto.vision.finetuning import FinetuneSpec, Strategy, Weights
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.collectives import Distribution, gather_rows, same_as_first, sum_over_workers
from enxerto.vision.torch.data import Augmentation, FinetuneData, ImageArray
from enxerto.vision.torch.devices import Compute, choose_compute, detect
from enxerto.vision.torch.network import GraftedNetwork, LinearHead
from enxerto.vision.torch.optimisation import BestEpoch, Score, make_optimizer, warmup_cosine
from enxerto.vision.torch.progress import EpochReport, OnEpoch, OnStep, Phase, StepMeter
from enxerto.vision.torch.weights import WeightsSources

_FEATURE_BATCH: Final = 32
_GRADIENT_NORM: Final = 5.0


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """A trained network, the same on every worker.

    Attributes:
        network: on the CPU, in eval mode, of the best epoch.
        history: every epoch's report, in order.
        best_phase: LINEAR_PROBE when fine-tuning found nothing better.
        best_epoch: from 1, within `best_phase`.
        val_loss: of that epoch, nats.
        val_accuracy: of that epoch, in [0, 1].
        weights_sha256: of the file of pretrained weights; None with weights NONE.
        weights_source: where that file came from; None with weights NONE.
        batch_norm: what was done with batch-norm statistics, for people.
    """

    network: GraftedNetwork
    history: tuple[EpochReport, ...]
    best_phase: Phase
    best_epoch: int
    val_loss: float
    val_accuracy: float
    weights_sha256: str | None
    weights_source: str | None
    batch_norm: str


def finetune(
    spec: FinetuneSpec,
    data: FinetuneData,
    *,
    sources: WeightsSources,
    report: OnEpoch,
    step: OnStep | None = None,
    distribution: Distribution | None = None,
    compute: Compute | None = None,
) -> FinetuneResult:
    """Train, and return the epoch that did best on the validation split.

    FEATURE_EXTRACTION trains a linear head on the frozen backbone's features, which are computed once, or once an epoch
    with augmentation. FINE_TUNE does that first and then trains the last stages together with the head: fine-tuning
    from a random head distorts good features (Kumar et al. 2022, arXiv:2202.10054). The head's result stays a
    candidate, so FINE_TUNE is never worse than it on the validation split.

    Batch-norm statistics stay frozen wherever the network is pretrained, in trained stages too: small batches of a
    small dataset estimate them worse than ImageNet did. Without pretrained weights, trained stages learn them.

    Args:
        spec: what to do.
        data: this worker's part of the images.
        sources: of the pretrained weights.
        report: told after every epoch, on every worker; may raise to cancel.
        step: told about twice a second, on every worker; may raise to cancel.
        distribution: this worker's place; alone when None.
        compute: device, precision and threads; chosen by what the machine has when None.

    Raises:
        InvalidArgumentError: the spec is bad, or a split is empty.
        WeightsUnavailableError: no source has the pretrained weights.
    """
    where = distribution or Distribution()
    _validate(spec, data)
    how = compute or choose_compute(detect(), workers_per_machine=where.local_world_size, local_rank=where.local_rank)
    torch.set_num_threads(how.threads)
    torch.manual_seed(spec.seed)
    backbone, weights = build_backbone(spec.base_model, spec.weights, sources, seed=spec.seed)
    if spec.unfreeze_stages > len(backbone.stages):
        bad = f"{spec.base_model} has {len(backbone.stages)} stages"
        raise InvalidArgumentError([Violation("unfreeze_stages", bad)])
    network = GraftedNetwork(backbone, LinearHead(backbone.feature_dim, len(data.class_names)), data.preprocess)
    # Depthwise convolutions on a CPU were 2 to 2.5 times faster with channels last.
    network.requires_grad_(False).eval().to(how.device).to(memory_format=torch.channels_last)
    run = _Run(spec, data, network, where=where, how=how, report=report, step=step)
    best_phase, best = Phase.LINEAR_PROBE, run.train_head()
    batch_norm = "frozen: the backbone is not trained"
    if spec.strategy is Strategy.FINE_TUNE:
        best_phase, best, batch_norm = run.train_network(best)
    if best.score is None:
        raise InvalidArgumentError([Violation("learning_rate", "training diverged: no epoch has a finite loss")])
    network.requires_grad_(False).eval().to("cpu")
    return FinetuneResult(
        network=network,
        history=tuple(run.history),
        best_phase=best_phase,
        best_epoch=best.epoch,
        val_loss=best.score.loss,
        val_accuracy=best.score.accuracy,
        weights_sha256=None if weights is None else weights.sha256,
        weights_source=None if weights is None else weights.source,
        batch_norm=batch_norm,
    )


def _validate(spec: FinetuneSpec, data: FinetuneData) -> None:
    violations = Violations()
    spec.validate(violations)
    if data.train.total == 0 or data.val.total == 0:
        violations.add("dataset", "needs images in both the training and the validation split")
    if len(data.class_names) < 2:
        violations.add("dataset", "needs at least two classes")
    if spec.augment and data.canvas is None:
        violations.add("augment", "needs training images that were loaded with augment=True")
    violations.raise_if_any()


def compute_features(
    network: GraftedNetwork,
    images: ImageArray,
    where: Distribution,
    how: Compute,
    *,
    meter: StepMeter,
    transform: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (total, D), float32, and labels (total,) of a whole split, the same on every worker.

    Each worker computes its own part. `transform` is applied to (n, 3, H, W) uint8 batches, with the first row's index.
    """
    parts: list[torch.Tensor] = []
    with torch.inference_mode(), how.autocast():
        for start in range(0, len(images), _FEATURE_BATCH):
            pixels = images.batch(slice(start, start + _FEATURE_BATCH))
            if transform is not None:
                pixels = transform(pixels, start)
            parts.append(network.features(to_unit(pixels, how)).float())
            meter.add(len(pixels))
    mine = torch.cat(parts) if parts else torch.empty(0, network.backbone.feature_dim, device=how.device)
    indices = torch.from_numpy(images.indices).to(how.device)
    labels = torch.from_numpy(images.labels).to(how.device)
    # A plain copy: tensors made in inference mode cannot take part in training.
    return (
        gather_rows(mine.clone(), indices, images.total, where),
        gather_rows(labels, indices, images.total, where),
    )


def to_unit(pixels: torch.Tensor, how: Compute) -> torch.Tensor:
    """(n, 3, H, W) uint8 to float32 in [0, 1] on the device, channels last."""
    moved = pixels.to(how.device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).mul_(1 / 255)


class _Run:
    """The state that both phases share."""

    def __init__(
        self,
        spec: FinetuneSpec,
        data: FinetuneData,
        network: GraftedNetwork,
        *,
        where: Distribution,
        how: Compute,
        report: OnEpoch,
        step: OnStep | None,
    ) -> None:
        self._spec = spec
        self._data = data
        self._network = network
        self._where = where
        self._how = how
        self._report = report
        self._step = step
        self._augmentation = Augmentation(data.preprocess) if spec.augment else None
        self.history: list[EpochReport] = []

    # --- the head on a frozen backbone ---

    def train_head(self) -> BestEpoch:
        """Every worker computes part of the features and trains the same head on all of them."""
        spec = self._spec
        if spec.strategy is Strategy.FINE_TUNE:
            spec = _probe_spec(spec)
        head = self._network.head
        assert isinstance(head, LinearHead)
        meter = StepMeter(Phase.FEATURES, len(self._data.train) + len(self._data.val), self._step)
        features, labels = compute_features(self._network, self._data.train, self._where, self._how, meter=meter)
        val_features, val_labels = compute_features(self._network, self._data.val, self._where, self._how, meter=meter)
        head.calibrate(features)
        head.requires_grad_(True)
        optimizer = make_optimizer(spec, head, [])
        steps = math.ceil(len(labels) / spec.batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, warmup_cosine(spec.epochs * steps, spec.warmup_fraction)
        )
        best = BestEpoch(spec.early_stopping_patience)
        started = time.perf_counter()
        for epoch in range(1, spec.epochs + 1):
            epoch_started = time.perf_counter()
            if spec.augment:
                features, labels = self._augmented_features(epoch)
            order = torch.from_numpy(np.random.default_rng((spec.seed, epoch)).permutation(len(labels)))
            loss_sum = torch.zeros((), device=features.device)
            for rows in torch.split(order.to(features.device), spec.batch_size):
                loss = functional.cross_entropy(head(features[rows]), labels[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach() * len(rows)
            with torch.no_grad():
                logits = head(val_features)
                score = Score(
                    float(functional.cross_entropy(logits, val_labels)),
                    int((logits.argmax(1) == val_labels).sum()) / len(val_labels),
                )
            best.offer(score, epoch, head)
            self._tell(
                Phase.LINEAR_PROBE,
                epoch,
                spec.epochs,
                train_loss=float(loss_sum) / len(labels),
                score=score,
                learning_rate=float(optimizer.param_groups[0]["lr"]),
                clock=(started, epoch_started),
            )
            if best.should_stop:
                break
        head.load_state_dict(best.state)
        same_as_first(head, self._where)
        return best

    def _augmented_features(self, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        canvas = self._data.canvas
        assert canvas is not None
        meter = StepMeter(Phase.LINEAR_PROBE, len(canvas), self._step)

        def transform(pixels: torch.Tensor, start: int) -> torch.Tensor:
            return self._augment(pixels, epoch, start)

        return compute_features(self._network, canvas, self._where, self._how, meter=meter, transform=transform)

    def _augment(self, pixels: torch.Tensor, epoch: int, start: int) -> torch.Tensor:
        assert self._augmentation is not None
        key = np.random.SeedSequence((self._spec.seed, epoch, self._where.rank, start))
        return self._augmentation(pixels, int(key.generate_state(1)[0]))

    # --- the whole network ---

    def train_network(self, probe: BestEpoch) -> tuple[Phase, BestEpoch, str]:
        """Train the last stages and the head, from the probe's result."""
        spec, network = self._spec, self._network
        stages = network.backbone.stages
        trained = [module for _, module in stages[-spec.unfreeze_stages :]]
        for module in trained:
            module.requires_grad_(True)
        learns_statistics = spec.weights is Weights.NONE
        network.head.requires_grad_(True)
        optimizer = make_optimizer(spec, network.head, [p for module in trained for p in module.parameters()])
        per_worker = max(1, spec.batch_size // self._where.world_size)
        # By the longest part, so that no worker waits for a gradient that another will not send.
        longest = math.ceil(self._data.train.total / self._where.world_size)
        steps = math.ceil(longest / per_worker)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, warmup_cosine(spec.epochs * steps, spec.warmup_fraction)
        )
        scaler = torch.amp.GradScaler(self._how.device, enabled=self._how.scales_gradients)
        model: nn.Module = network
        if self._where.world_size > 1:
            model = DistributedDataParallel(
                network, device_ids=[self._how.device] if self._how.device.startswith("cuda") else None
            )
        best = BestEpoch(spec.early_stopping_patience)
        best.offer(self._validate(), 0, network)
        started = time.perf_counter()
        for epoch in range(1, spec.epochs + 1):
            epoch_started = time.perf_counter()
            _train_mode(network, trained, learns_statistics)
            losses = torch.zeros(2, device=self._how.device)
            meter = StepMeter(Phase.FINE_TUNE, steps * per_worker, self._step)
            for pixels, labels in self._batches(epoch, steps, per_worker):
                with self._how.autocast():
                    loss = functional.cross_entropy(model(to_unit(pixels, self._how)).float(), labels)
                optimizer.zero_grad()
                torch.autograd.backward(scaler.scale(loss))
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], _GRADIENT_NORM)
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                losses += torch.stack((loss.detach() * len(labels), loss.new_tensor(float(len(labels)))))
                meter.add(len(labels))
            losses = sum_over_workers(losses, self._where)
            score = self._validate()
            best.offer(score, epoch, network)
            self._tell(
                Phase.FINE_TUNE,
                epoch,
                spec.epochs,
                train_loss=float(losses[0] / losses[1]),
                score=score,
                learning_rate=float(optimizer.param_groups[0]["lr"]),
                clock=(started, epoch_started),
            )
            if best.should_stop:
                break
        network.load_state_dict(best.state)
        same_as_first(network, self._where)
        what = "learned in trained stages, from random weights" if learns_statistics else "frozen in every stage"
        if best.epoch == 0:
            probe.score = best.score
            return Phase.LINEAR_PROBE, probe, what
        return Phase.FINE_TUNE, best, what

    def _batches(self, epoch: int, steps: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`steps` batches of this worker's images in a random order, from the start again if they run out."""
        images = self._data.train if self._data.canvas is None or not self._spec.augment else self._data.canvas
        order = np.random.default_rng((self._spec.seed, epoch, self._where.rank)).permutation(len(images))
        for step in range(steps):
            rows = order[step * size : (step + 1) * size]
            if len(rows) == 0:
                rows = order[:size]
            pixels = images.batch(rows)
            if self._augmentation is not None:
                pixels = self._augment(pixels, epoch, step)
            yield pixels, torch.from_numpy(images.labels[rows]).to(self._how.device)

    def _validate(self) -> Score:
        network, images = self._network.eval(), self._data.val
        sums = torch.zeros(3, dtype=torch.float64, device=self._how.device)
        with torch.inference_mode(), self._how.autocast():
            for start in range(0, len(images), _FEATURE_BATCH):
                rows = slice(start, start + _FEATURE_BATCH)
                logits = network(to_unit(images.batch(rows), self._how)).float()
                labels = torch.from_numpy(images.labels[rows]).to(self._how.device)
                sums[0] += functional.cross_entropy(logits, labels, reduction="sum")
                sums[1] += (logits.argmax(1) == labels).sum()
                sums[2] += len(labels)
        loss, right, count = sum_over_workers(sums.clone(), self._where).tolist()
        return Score(loss / count, right / count)

    def _tell(
        self,
        phase: Phase,
        epoch: int,
        epochs: int,
        *,
        train_loss: float,
        score: Score,
        learning_rate: float,
        clock: tuple[float, float],
    ) -> None:
        now = time.perf_counter()
        started, epoch_started = clock
        report = EpochReport(
            epoch=epoch,
            epochs=epochs,
            phase=phase,
            train_loss=train_loss,
            val_loss=score.loss,
            val_accuracy=score.accuracy,
            learning_rate=learning_rate,
            images_per_s=self._data.train.total / max(now - epoch_started, 1e-9),
            eta_s=(now - started) / epoch * (epochs - epoch),
        )
        self.history.append(report)
        self._report(report)


def _probe_spec(spec: FinetuneSpec) -> FinetuneSpec:
    """The linear probe before fine-tuning: the defaults of FEATURE_EXTRACTION, with the run's own seed."""
    defaults = FinetuneSpec.with_defaults(spec.base_model, weights=spec.weights, seed=spec.seed)
    return replace(defaults, batch_size=min(defaults.batch_size, max(1, spec.batch_size)))


def _train_mode(network: GraftedNetwork, trained: list[nn.Module], learns_statistics: bool) -> None:
    """Train mode for the head and the trained stages; batch norm keeps its statistics unless they are learned."""
    network.eval()
    network.head.train()
    for stage in trained:
        stage.train()
        if not learns_statistics:
            for module in stage.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
