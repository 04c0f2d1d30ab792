"""`python -m enxerto.training.worker`: what Ray's Jobs API starts."""

import argparse
import logging
import sys
from pathlib import Path

from enxerto.training.worker.order import JobOrder


def main() -> int:
    """Read the order from the command line and run it."""
    parser = argparse.ArgumentParser(prog="enxerto.training.worker")
    parser.add_argument("--blob-url", required=True)
    parser.add_argument("--uid", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--cache-folder", type=Path, required=True)
    parser.add_argument("--weights-folder", type=Path)
    parser.add_argument("--no-weights-download", dest="weights_download", action="store_false")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    # After the arguments are known to be good: Ray takes seconds to import.
    from enxerto.training.worker.job import run_job  # noqa: PLC0415

    return run_job(
        JobOrder(
            given.blob_url,
            given.uid,
            given.attempt,
            given.cache_folder,
            given.weights_folder,
            given.weights_download,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
