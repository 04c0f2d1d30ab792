"""Both ways to transfer a style, by the train function in two processes."""

import subprocess
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PICTURES = 7
"""Odd: one of the workers has one fewer."""


def run_by_two(folder: Path, spec: FinetuneSpec) -> JobOrder:
    """The order of a run that two workers have ended."""
    write_folder(Task.STYLE, folder / "data", count=PICTURES)
    order = write_order(folder, folder / "data", spec, num_workers=2)
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder / "meet"), order.blob_url, str(order.cache_folder)],
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        assert [worker.wait(280) for worker in workers] == [0, 0]
    finally:
        # The other one would wait for a worker that has failed.
        for worker in workers:
            worker.kill()
            worker.wait()
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
