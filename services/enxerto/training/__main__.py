"""`python -m enxerto.training`."""

import sys

from enxerto.runtime.process import run_service
from enxerto.training.bootstrap import run
from enxerto.training.settings import TrainingSettings

if __name__ == "__main__":
    sys.exit(run_service("training", TrainingSettings, run))
