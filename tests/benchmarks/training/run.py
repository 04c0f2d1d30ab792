"""What `vision.torch.finetune` costs against plain PyTorch loops, measured in the same run, interleaved.

    python tests/benchmarks/training/run.py [--images 96] [--epochs 2] [--rounds 3] [--threads 2]

FEATURE_EXTRACTION: 20 epochs, against one inference pass and training a linear layer on its output.
FINE_TUNE: the tuning itself (the linear probe before it is not counted), against a loop of the same steps and passes.
Each line gives medians of wall and CPU milliseconds an image, and the median of the rounds' ratios (ours / plain).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import FinetuneSpec, Strategy
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.data import FinetuneData, ImageArray
from enxerto.vision.torch.devices import Compute
from enxerto.vision.torch.finetune import finetune
from enxerto.vision.torch.network import GraftedNetwork, LinearHead
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.weights import WeightsSources

CLASSES = 10
BATCH = 32
SOURCES = WeightsSources(download=False)
Times = tuple[float, float]


def array(count: int, side: int, seed: int) -> ImageArray:
    """Random pictures: what they show changes nothing of what they cost."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 255, (count, side, side, 3), dtype=np.uint8)
    return ImageArray(images, np.arange(count, dtype=np.int64) % CLASSES, np.arange(count, dtype=np.int64), count)


def now() -> Times:
    """Wall and CPU clock, in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: Times, end: Times | None = None) -> Times:
    """Seconds of wall and CPU time."""
    wall, cpu = end or now()
    return wall - start[0], cpu - start[1]


def unit(array: ImageArray, rows: np.ndarray | slice) -> torch.Tensor:
    """A batch in [0, 1]."""
    return array.batch(rows).float().mul_(1 / 255)


def network(spec: FinetuneSpec, data: FinetuneData) -> GraftedNetwork:
    """The same network that `finetune` builds."""
    backbone, _ = build_backbone(spec.base_model, spec.weights, SOURCES, seed=spec.seed)
    return GraftedNetwork(backbone, LinearHead(backbone.feature_dim, CLASSES), data.preprocess).eval()


def batches(count: int) -> list[slice]:
    """Rows of each batch, in order."""
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def plain_extraction(spec: FinetuneSpec, data: FinetuneData) -> Times:
    """One pass over the images, then a linear layer on its output."""
    model = network(spec, data)
    head = nn.Linear(model.backbone.feature_dim, CLASSES)
    start = now()
    with torch.inference_mode():
        passes = [
            torch.cat([model.features(unit(part, rows)) for rows in batches(len(part))])
            for part in (data.train, data.val)
        ]
    features, val_features = (one.clone() for one in passes)
    labels = torch.from_numpy(data.train.labels)
    optimizer = torch.optim.AdamW(head.parameters(), spec.learning_rate)
    for _ in range(spec.epochs):
        for rows in torch.split(torch.randperm(len(labels)), spec.batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(head(features[rows]), labels[rows]))
            optimizer.step()
        with torch.no_grad():
            head(val_features).argmax(1)
    return since(start)


def our_extraction(spec: FinetuneSpec, data: FinetuneData, compute: Compute) -> Times:
    """`finetune`, less the building of the network, which the plain loop does not count either."""
    built = now()
    network(spec, data)
    building = since(built)
    start = now()
    finetune(spec, data, sources=SOURCES, report=lambda _: None, compute=compute)
    wall, cpu = since(start)
    return wall - building[0], cpu - building[1]


def plain_tuning(spec: FinetuneSpec, data: FinetuneData) -> Times:
    """Forward, backward, step; one validation before and one after every epoch."""
    model = network(spec, data).requires_grad_(True)
    model.mean.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)

    def validate() -> None:
        model.eval()
        with torch.inference_mode():
            for rows in batches(len(data.val)):
                model(unit(data.val, rows)).argmax(1)

    start = now()
    validate()
    for epoch in range(spec.epochs):
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        order = np.random.default_rng(epoch).permutation(len(data.train))
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            loss = functional.cross_entropy(model(unit(data.train, rows)), torch.from_numpy(data.train.labels[rows]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        validate()
    return since(start)


def our_tuning(spec: FinetuneSpec, data: FinetuneData, compute: Compute) -> Times:
    """From the end of the linear probe to the end of the last epoch."""
    marks: dict[Phase, Times] = {}

    def mark(report: EpochReport) -> None:
        marks[report.phase] = now()

    finetune(spec, data, sources=SOURCES, report=mark, compute=compute)
    return since(marks[Phase.LINEAR_PROBE], marks[Phase.FINE_TUNE])


def compare(title: str, rounds: int, images: int, ours: Callable[[], Times], plain: Callable[[], Times]) -> None:
    """Measure both in turns and print a line."""
    ours()
    measured: list[tuple[Times, Times]] = []
    for number in range(rounds):
        # Whoever goes second finds warmer caches: they take turns.
        if number % 2:
            second = plain()
            measured.append((ours(), second))
        else:
            measured.append((ours(), plain()))
        print(f"  round {number + 1}: {measured[-1]}", flush=True)
    cells = [title]
    for position, kind in ((0, "wall"), (1, "CPU")):
        mine = statistics.median(one[0][position] for one in measured) * 1000 / images
        theirs = statistics.median(one[1][position] for one in measured) * 1000 / images
        ratio = statistics.median(one[0][position] / one[1][position] for one in measured)
        cells.append(f"{kind}: ours {mine:.1f} ms, plain {theirs:.1f} ms, ratio {ratio:.2f}")
    print(" | ".join(cells), flush=True)


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    facts = get_facts("efficientnet_lite0")
    side = facts.preprocess.height
    data = FinetuneData(
        tuple(map(str, range(CLASSES))),
        facts.preprocess,
        array(given.images, side, 1),
        array(given.images // 3, side, 2),
    )
    compute = Compute("cpu", None, given.threads)
    print(f"efficientnet_lite0, {given.images} images, {given.threads} threads, load {os.getloadavg()[0]:.1f}")
    extraction = FinetuneSpec.with_defaults(epochs=20, early_stopping_patience=0)
    compare(
        "FEATURE_EXTRACTION, 20 epochs",
        given.rounds,
        len(data.train) + len(data.val),
        lambda: our_extraction(extraction, data, compute),
        lambda: plain_extraction(extraction, data),
    )
    tuning = FinetuneSpec.with_defaults(
        strategy=Strategy.FINE_TUNE, epochs=given.epochs, batch_size=BATCH, augment=False, early_stopping_patience=0
    )
    compare(
        f"FINE_TUNE, {given.epochs} epochs",
        given.rounds,
        given.epochs * len(data.train),
        lambda: our_tuning(tuning, data, compute),
        lambda: plain_tuning(tuning, data),
    )
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
