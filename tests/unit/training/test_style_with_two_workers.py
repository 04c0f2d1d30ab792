"""Both ways to transfer a style, by the train function in two processes."""

import sys
from pathlib import Path

import pytest
from torch import distributed as dist

from enxerto.training.domain import JobTrained, TrainingResult
from enxerto.training.worker.order import JobOrder
from enxerto.training.worker.training import train
from enxerto.vision.contracts import MIN_AGREEMENT
from enxerto.vision.finetuning import FinetuneSpec, StyleSpec
from enxerto.vision.specs import Task
from enxerto.vision.torch.collectives import Distribution
from fakes.dataset_folders import write_folder
from worker_orders import read_log, read_result, small_spec, write_order
from worker_pairs import run_pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PICTURES = 7
"""Odd: one of the workers has one fewer."""


def run_by_two(folder: Path, spec: FinetuneSpec) -> JobOrder:
    """The order of a run that two workers have ended."""
    write_folder(Task.STYLE, folder / "data", count=PICTURES)
    order = write_order(folder, folder / "data", spec, num_workers=2)
    run_pair(__file__, folder / "meet", order.blob_url, order.cache_folder, seconds=280)
    return order


async def result_of(order: JobOrder) -> TrainingResult:
    """What a run has left that ended well, and said so once."""
    bodies = [entry.body for entry in await read_log(order)]
    assert isinstance(bodies[-1], JobTrained), bodies[-1]
    assert [type(one) for one in bodies].count(JobTrained) == 1
    return await read_result(order)


async def test_two_workers_train_a_network(tmp_path: Path) -> None:
    spec = small_spec(Task.STYLE, base_model="fast_style", image_size=64, epochs=1, batch_size=4)
    result = await result_of(run_by_two(tmp_path, spec))
    assert result.parity is not None
    assert result.parity.agreement >= MIN_AGREEMENT[Task.STYLE]
    assert {one.filename for one in result.artifacts} >= {"model.onnx", "styles.png", "report.html"}


async def test_two_workers_share_the_pictures(tmp_path: Path) -> None:
    spec = small_spec(Task.STYLE, base_model="gatys", image_size=64, style=StyleSpec(steps=5))
    result = await result_of(run_by_two(tmp_path, spec))
    assert (result.artifacts, result.parity) == ((), None)
    painted = {one.filename for one in result.files if one.filename.startswith("picture-")}
    assert painted == {f"picture-{number:04d}.png" for number in range(1, PICTURES + 1)}


def _worker(rank: int, meet: str, url: str, cache: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    order = JobOrder(url, "run1", 1, cache, None, weights_download=False)
    train(order, Distribution(rank, 2, rank, 2))
    dist.destroy_process_group()


if __name__ == "__main__":
    _worker(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
