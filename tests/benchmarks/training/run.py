"""What training costs against plain PyTorch loops, measured in the same run, interleaved.

    python tests/benchmarks/training/run.py [--images 96] [--epochs 2] [--rounds 3] [--threads 2] [--only NAME]

FEATURE_EXTRACTION: 20 epochs of the classification recipe, against one inference pass over the same encoded pictures
and training a linear layer on its output. FINE_TUNE: the engine's epochs, against a loop of the same steps and
passes; each side in a process of its own, ours with the environment that the platform gives its workers, the plain loop
with glibc's defaults and then with ours. WORKERS: two workers on one core each, in sum, against one worker that uses
both. Each line gives medians of wall and CPU milliseconds an image, and the median of the rounds' ratios (ours / plain;
for WORKERS two / one).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).parents[2]))

from enxerto.runtime.allocator import ALLOCATOR_ENVIRONMENT
from enxerto.vision.blobs import FolderBlobs
from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import AugmentationSpec, FinetuneSpec, StopSpec, Strategy
from enxerto.vision.snapshots import Manifest
from enxerto.vision.specs import Split
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.classification.features import to_unit
from enxerto.vision.torch.classification.images import as_batch, keep
from enxerto.vision.torch.classification.learners import ImageLearner
from enxerto.vision.torch.classification.network import ClassifierHead, GraftedNetwork
from enxerto.vision.torch.classification.preparation import source_of
from enxerto.vision.torch.classification.training import ClassificationRun
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import choose_compute, detect
from enxerto.vision.torch.progress import EpochReport, Phase
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.weights import WeightsSources
from fakes.datasets import classification_scenes, snapshot_of

CLASSES = 4
BATCH = 32
Times = tuple[float, float]
Data = tuple[Manifest, FolderBlobs]


def now() -> Times:
    """Wall and CPU clock, in seconds."""
    return time.perf_counter(), time.process_time()


def since(start: Times, end: Times | None = None) -> Times:
    """Seconds of wall and CPU time."""
    wall, cpu = end or now()
    return wall - start[0], cpu - start[1]


def extraction_spec() -> FinetuneSpec:
    """20 epochs, none left out."""
    return FinetuneSpec.with_defaults(epochs=20, stop=StopSpec())


def tuning_spec(epochs: int) -> FinetuneSpec:
    """All stages, without augmentation, which is the same work in both loops."""
    return FinetuneSpec.with_defaults(
        strategy=Strategy.FINE_TUNE,
        epochs=epochs,
        batch_size=BATCH,
        augmentation=AugmentationSpec(),
        stop=StopSpec(),
    )


def make_job(
    spec: FinetuneSpec,
    data: Data,
    threads: int,
    *,
    where: Distribution | None = None,
    on_epoch: Callable[[EpochReport], None] = lambda _: None,
) -> Job:
    """A job on this machine's GPU, or else its CPU."""
    return Job(
        spec=spec,
        facts=get_facts(spec.base_model),
        manifest=data[0],
        blobs=data[1],
        sources=WeightsSources(download=False),
        where=where or Distribution(),
        compute=choose_compute(replace(detect(), cores=threads)),
        on_epoch=on_epoch,
    )


def network(job: Job) -> GraftedNetwork:
    """The same network that the recipe builds."""
    backbone, _ = build_backbone(job.spec.base_model, job.spec.weights, job.sources, seed=job.spec.seed)
    made = GraftedNetwork(backbone, ClassifierHead(backbone.feature_dim, CLASSES), job.facts.preprocess)
    return made.eval().to(job.compute.device).to(memory_format=torch.channels_last)


def plain_extraction(job: Job) -> Times:
    """One pass over the pictures, then a linear layer on its output."""
    model, spec = network(job), job.spec
    head = nn.Linear(model.backbone.feature_dim, CLASSES).to(job.compute.device)
    start = now()
    passes = {}
    with torch.inference_mode(), job.compute.autocast():
        for split in (Split.TRAIN, Split.VAL):
            outputs, answers = [], []
            for pixels, part in source_of(job).stream(split, job.facts.preprocess, BATCH):
                outputs.append(model.features(to_unit(as_batch(pixels), job.compute)).float())
                answers.append(torch.from_numpy(part).to(job.compute.device))
            passes[split] = torch.cat(outputs), torch.cat(answers)
    (features, labels), (val, _) = ((x.clone(), y.clone()) for x, y in passes.values())
    optimizer = torch.optim.AdamW(head.parameters(), spec.learning_rate)
    for _ in range(spec.epochs):
        for rows in torch.split(torch.randperm(len(labels)), spec.batch_size):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(head(features[rows]), labels[rows]))
            optimizer.step()
        with torch.no_grad():
            head(val).argmax(1).cpu()
    return since(start)


def our_extraction(job: Job) -> Times:
    """The recipe, less the building of the network and of what is served: the plain loop does not count them either."""
    marks: list[Times] = []
    run = ClassificationRun(replace(job, on_epoch=lambda _: marks.append(now())))
    start = now()
    run.run()
    return since(start, marks[-1])


def plain_tuning(job: Job) -> Times:
    """Forward, backward, step; one validation after every epoch."""
    model, spec = network(job).requires_grad_(True), job.spec
    train, val = (keep(source_of(job), split, job.facts.preprocess) for split in (Split.TRAIN, Split.VAL))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    start = now()
    for epoch in range(spec.epochs):
        model.train()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        order = np.random.default_rng(epoch).permutation(len(train))
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            labels = torch.from_numpy(train.labels[rows]).to(job.compute.device)
            with job.compute.autocast():
                loss = functional.cross_entropy(model(to_unit(train.batch(rows), job.compute)), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        model.eval()
        with torch.inference_mode(), job.compute.autocast():
            for first in range(0, len(val), BATCH):
                rows = np.arange(first, min(first + BATCH, len(val)))
                model(to_unit(val.batch(rows), job.compute)).argmax(1).cpu()
    return since(start)


def our_tuning(job: Job) -> Times:
    """The engine's epochs: from when the pictures are decoded to the end of the last epoch."""
    marks: dict[str, Times] = {}
    started: list[Times] = []

    class Marked(ClassificationRun):
        def _image_learner(self) -> ImageLearner:
            learner = super()._image_learner()
            started.append(now())
            return learner

    def epoch_done(report: EpochReport) -> None:
        marks[report.phase] = now()

    Marked(replace(job, on_epoch=epoch_done)).run()
    return since(started[0], marks[Phase.FINE_TUNE])


def write_data(data: Data, folder: Path) -> None:
    """Leave the manifest where a child reads it."""
    (folder / "manifest").write_bytes(data[0].to_bytes())


def read_data(folder: Path, blobs: Path) -> Data:
    """What `write_data` left, and the shards."""
    return Manifest.from_bytes((folder / "manifest").read_bytes()), FolderBlobs(blobs)


def start(*arguments: object, threads: int, tuned: bool = False, pipe: int | None = None) -> subprocess.Popen[str]:
    """This script again, as a child; `tuned` is with the environment of the platform's workers."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **(ALLOCATOR_ENVIRONMENT if tuned else {})},
        stdin=pipe,
        stdout=pipe,
        text=True,
    )


def images_per_s(data: Data, epochs: int, workers: int, threads: int) -> float:
    """Training images a second of the last epoch, over all workers, each in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(data, folder)
        running = [
            start("--worker", rank, folder, data[1].folder, workers, threads, epochs, threads=threads)
            for rank in range(workers)
        ]
        if any(worker.wait() for worker in running):
            raise RuntimeError("a worker failed")
        return float((folder / "speed").read_text())


def worker(rank: int, folder: Path, blobs: Path, *, workers: int, threads: int, epochs: int) -> None:
    """One worker of `images_per_s`."""
    torch.set_num_threads(threads)
    where = Distribution()
    if workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=workers)
        where = Distribution(rank, workers, rank, workers)
    data = read_data(folder, blobs)
    speeds: list[float] = []

    def epoch_done(report: EpochReport) -> None:
        if report.phase is Phase.FINE_TUNE:
            speeds.append(report.images_per_s)

    ClassificationRun(make_job(tuning_spec(epochs), data, threads, where=where, on_epoch=epoch_done)).run()
    if rank == 0:
        (folder / "speed").write_text(str(max(speeds)))
    if workers > 1:
        dist.destroy_process_group()


class Side:
    """A loop in a process of its own, which measures each time that it is asked to."""

    def __init__(self, name: str, folder: Path, blobs: Path, *, epochs: int, threads: int, tuned: bool) -> None:
        arguments = ("--side", name, folder, blobs, epochs, threads)
        self._process = start(*arguments, threads=threads, tuned=tuned, pipe=subprocess.PIPE)

    def __call__(self) -> Times:
        """Measure once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        wall, cpu = self._process.stdout.readline().split()
        return float(wall), float(cpu)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def side(name: str, folder: Path, blobs: Path, *, epochs: int, threads: int) -> None:
    """The other end of a `Side`."""
    torch.set_num_threads(threads)
    measure = {"ours": our_tuning, "plain": plain_tuning}[name]
    job = make_job(tuning_spec(epochs), read_data(folder, blobs), threads)
    for _ in sys.stdin:
        print(*measure(job), flush=True)


def compare_tuning(data: Data, rounds: int, epochs: int, threads: int) -> None:
    """Our epochs against both plain loops."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(data, folder)
        ours, plain, tuned_plain = sides = [
            Side(name, folder, data[1].folder, epochs=epochs, threads=threads, tuned=tuned)
            for name, tuned in (("ours", True), ("plain", False), ("plain", True))
        ]
        images = epochs * data[0].count(Split.TRAIN)
        try:
            for one in sides:
                one()
            compare(f"FINE_TUNE, {epochs} epochs", rounds, images, ours, plain)
            compare("the same, plain loop with our allocator settings", rounds, images, ours, tuned_plain)
        finally:
            for one in sides:
                one.close()


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


def compare_workers(data: Data, rounds: int, epochs: int, threads: int) -> None:
    """Two workers with half of the threads each against one with all."""
    ratios = []
    for number in range(rounds):
        one = images_per_s(data, epochs, 1, threads)
        two = images_per_s(data, epochs, 2, max(1, threads // 2))
        ratios.append(two / one)
        print(f"  round {number + 1}: one worker {one:.1f} images/s, two {two:.1f} images/s", flush=True)
    print(f"WORKERS, {threads} threads | two / one {statistics.median(ratios):.2f}", flush=True)


def main() -> None:
    """Run the comparisons."""
    if sys.argv[1:2] == ["--side"]:
        name, folder, blobs, epochs, threads = sys.argv[2:]
        side(name, Path(folder), Path(blobs), epochs=int(epochs), threads=int(threads))
        return
    if sys.argv[1:2] == ["--worker"]:
        rank, folder, blobs, workers, threads, epochs = sys.argv[2:]
        worker(int(rank), Path(folder), Path(blobs), workers=int(workers), threads=int(threads), epochs=int(epochs))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("FEATURE_EXTRACTION", "FINE_TUNE", "WORKERS"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    scenes = classification_scenes(given.images * 4 // 3 // CLASSES, CLASSES, side=256, val=0.25, test=0.0)
    with tempfile.TemporaryDirectory() as scratch:
        data = snapshot_of(scenes, Path(scratch))
        train, val = data[0].count(Split.TRAIN), data[0].count(Split.VAL)
        load = os.getloadavg()[0]
        print(f"efficientnet_lite0, {train} + {val} images, {given.threads} threads, load {load:.1f}")
        extraction = make_job(extraction_spec(), data, given.threads)
        if given.only in (None, "FEATURE_EXTRACTION"):
            title = "FEATURE_EXTRACTION, 20 epochs"
            ours, plain = lambda: our_extraction(extraction), lambda: plain_extraction(extraction)
            compare(title, given.rounds, train + val, ours, plain)
        if given.only in (None, "FINE_TUNE"):
            compare_tuning(data, given.rounds, given.epochs, given.threads)
        if given.only in (None, "WORKERS"):
            compare_workers(data, given.rounds, given.epochs, given.threads)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
