"""What the use cases need to have turned into bytes, specs and JSON."""

from collections.abc import Callable, Mapping
from typing import Any

from enxerto.kernel.errors import EnxertoError
from enxerto.training.domain import RunSpec, SweepPlan

StatusEncoder = Callable[[EnxertoError], bytes]
"""Turns an error into the serialised google.rpc.Status that a failed resource keeps."""

StatusDecoder = Callable[[bytes], EnxertoError]
"""The reverse, for what a job has left."""

TrialSpecs = Callable[[SweepPlan, Mapping[str, str]], RunSpec]
"""Puts a trial's parameters into its sweep's spec; raises InvalidArgumentError when they do not go together."""

SpecDocument = Callable[[RunSpec], Mapping[str, Any]]
"""A run's spec as JSON values, as jobs read it."""
