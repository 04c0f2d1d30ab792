"""`python -m enxerto.training.worker`: what Ray's Jobs API starts."""

import argparse
import logging
import sys
from pathlib import Path

from enxerto.training.domain import InquiryKind
from enxerto.training.worker.order import TRAIN, JobOrder


def main() -> int:
    """Read the order from the command line and run it."""
    parser = argparse.ArgumentParser(prog="enxerto.training.worker")
    parser.add_argument("--mode", choices=[TRAIN, *InquiryKind], default=TRAIN)
    parser.add_argument("--blob-url", required=True)
    parser.add_argument("--uid", required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--cache-folder", type=Path, required=True)
    parser.add_argument("--weights-folder", type=Path)
    parser.add_argument("--no-weights-download", dest="weights_download", action="store_false")
    parser.add_argument("--worker-restarts", type=int, default=2)
    parser.add_argument("--cpus-per-worker", type=float, default=1.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    # After the arguments are known to be good: Ray takes seconds to import.
    from enxerto.training.worker.job import run_job  # noqa: PLC0415

    return run_job(JobOrder(**vars(given)))


if __name__ == "__main__":
    sys.exit(main())
