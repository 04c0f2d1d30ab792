"""Test files that are run as the two workers of a run."""

import subprocess
import sys
from pathlib import Path


def run_pair(file: str, *arguments: object, seconds: float = 400) -> None:
    """Run a test file with rank 0 and 1 before the arguments, one thread each; both have to end well in that time."""
    workers = [
        subprocess.Popen(
            [sys.executable, file, str(rank), *map(str, arguments)],
            env={"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        assert [worker.wait(seconds) for worker in workers] == [0, 0]
    finally:
        # The other one would wait for a worker that has failed.
        for worker in workers:
            worker.kill()
            worker.wait()
