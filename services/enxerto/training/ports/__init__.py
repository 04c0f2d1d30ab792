"""What the use cases need from the outside. Every store has an in-memory twin that passes the same tests."""

from enxerto.training.ports.documents import SpecDocument, StatusDecoder, StatusEncoder, TrialSpecs
from enxerto.training.ports.imports import Imported, Importer, ImportRefusedError, UploadStore
from enxerto.training.ports.jobs import JobOutput, JobRunner, JobState
from enxerto.training.ports.leftovers import Leftovers, Upload
from enxerto.training.ports.registry import Registered, Registry
from enxerto.training.ports.searches import Search, Searches
from enxerto.training.ports.stores import DatasetStore, Idempotency, RunStore, SweepStore
from enxerto.training.ports.telemetry import Telemetry
from enxerto.training.ports.weights import ImportedWeights, WeightsCatalogue, WeightsVault

__all__ = [
    "DatasetStore",
    "Idempotency",
    "ImportRefusedError",
    "Imported",
    "ImportedWeights",
    "Importer",
    "JobOutput",
    "JobRunner",
    "JobState",
    "Leftovers",
    "Registered",
    "Registry",
    "RunStore",
    "Search",
    "Searches",
    "SpecDocument",
    "StatusDecoder",
    "StatusEncoder",
    "SweepStore",
    "Telemetry",
    "TrialSpecs",
    "Upload",
    "UploadStore",
    "WeightsCatalogue",
    "WeightsVault",
]
