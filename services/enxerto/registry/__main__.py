"""`python -m enxerto.registry` starts the registry service."""

import sys

from enxerto.registry.bootstrap import run
from enxerto.registry.settings import RegistrySettings
from enxerto.runtime.process import run_service

if __name__ == "__main__":
    sys.exit(run_service("registry", RegistrySettings, run))
