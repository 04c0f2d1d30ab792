"""`python -m enxerto.inference` starts the inference service."""

import sys

from enxerto.inference.bootstrap import run
from enxerto.inference.settings import InferenceSettings
from enxerto.runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("inference", InferenceSettings, run))
