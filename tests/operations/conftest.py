"""The checks of deploy/ are a program of their own, not a part of the package: make them importable."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("deploy", "protos"):
    sys.path.insert(0, str(ROOT / folder))
