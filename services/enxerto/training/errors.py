"""The named errors of the training service.

FailedPreconditionError
├── SnapshotNotReadyError       a run asks for a snapshot that is still importing, or failed
├── RunFinishedError            a transition that a final state forbids
├── SweepFinishedError          the same of a sweep
├── SweepFailedError            no trial of a sweep has succeeded
├── TaskMismatchError           a base model of another task than the dataset
├── ModelTaskMismatchError      a model of the registry that is for another task than the run
├── ParityGateError             the exported graph disagrees with the trained network
├── JobRefusedError             the cluster says no to a job
└── RegistryRefusedError        the registry says no to a version
NotFoundError
├── BaseModelMissingError       a base model that is not in the catalogue
└── RunFileMissingError         a file that the run has not left
DataLossError
└── RunBrokenError              a run that cannot be driven on
PermissionDeniedError
├── PathNotAllowedError         a path outside of the folders that the operator allows
└── LocationNotAllowedError     a URI outside of the locations that the operator allows
AlreadyExistsError
└── RequestIdReusedError        one request id, two contents
InvalidArgumentError
├── WeightsRefusedError         weights that are not the base model's
├── SourceRefusedError          images or an archive with errors; lists every bad file
└── UploadMismatchError         bytes that are not what their sender announced
ResourceExhaustedError
├── ArchiveTooLargeError        an archive over the limit
├── GpuMemoryError              a job that does not fit a GPU's memory
├── MachineMemoryError          a job that does not fit a machine's memory
├── DiskFullError               a job that has no room to write
└── InquiriesFullError          more questions at once than the cluster shall work on
AbortedError
└── StaleRevisionError          the resource changed since it was read
UnavailableError
├── ServiceStoppingError        the stream ends because the process does; reconnect with the last cursor
├── WorkersLostError            workers that died oftener than they are replaced
├── JobBrokenError              a job that ended without an answer and without a word
└── JobLostError                the cluster lost the job too often
"""

from pathlib import Path

from enxerto.kernel import errors
from enxerto.kernel.errors import PreconditionViolation


class SnapshotNotReadyError(errors.FailedPreconditionError):
    """Only a READY snapshot can be trained on."""

    reason = "SNAPSHOT_NOT_READY"

    def __init__(self, name: object, state: str) -> None:
        description = f"the snapshot is {state}; only a READY one can be trained on"
        super().__init__(f"{name}: {description}", [PreconditionViolation("STATE", str(name), description)])


class RunFinishedError(errors.FailedPreconditionError):
    """The run's state does not allow the transition."""

    reason = "RUN_STATE"

    def __init__(self, name: object, state: str, action: str) -> None:
        description = f"a run that is {state} cannot {action}"
        super().__init__(f"{name}: {description}", [PreconditionViolation("STATE", str(name), description)])


class SweepFinishedError(errors.FailedPreconditionError):
    """The sweep's state does not allow the transition."""

    reason = "SWEEP_STATE"

    def __init__(self, name: object, state: str, action: str) -> None:
        description = f"a sweep that is {state} cannot {action}"
        super().__init__(f"{name}: {description}", [PreconditionViolation("STATE", str(name), description)])


class TaskMismatchError(errors.FailedPreconditionError):
    """The base model answers another question than the dataset asks."""

    reason = "TASK_MISMATCH"

    def __init__(self, base_model: object, task: str, dataset: object, dataset_task: str) -> None:
        description = f"{base_model} is for {task}, and {dataset} is a dataset for {dataset_task}"
        super().__init__(description, [PreconditionViolation("TASK", str(base_model), description)])


class ModelTaskMismatchError(errors.FailedPreconditionError):
    """The model that the version is registered under is there already, for another task."""

    reason = "MODEL_TASK_MISMATCH"

    def __init__(self, model: object, model_task: str, task: str) -> None:
        description = f"{model} is a model for {model_task} already and takes no version for {task}; name another model"
        super().__init__(description, [PreconditionViolation("TASK", str(model), description)])


class SweepFailedError(errors.FailedPreconditionError):
    """No trial has succeeded."""

    reason = "SWEEP_FAILED"

    def __init__(self, name: object, trials: int, last: str) -> None:
        description = f"none of {trials} trials has succeeded; the last one: {last}"
        super().__init__(f"{name}: {description}", [PreconditionViolation("TRIALS", str(name), description)])


class JobBrokenError(errors.UnavailableError):
    """The cluster ended the job before it had an answer."""

    reason = "JOB_BROKEN"

    def __init__(self, what: str, last: str) -> None:
        super().__init__(f"the job of this {what} ended without an answer: {last}", retry_after_s=5.0)


class RunFileMissingError(errors.NotFoundError):
    """The run has left no such file."""

    reason = "RUN_FILE_NOT_FOUND"

    def __init__(self, name: object) -> None:
        super().__init__("RunFile", str(name))


class WeightsRefusedError(errors.InvalidArgumentError):
    """The bytes are not weights of the base model."""

    reason = "WEIGHTS_REFUSED"


class ParityGateError(errors.FailedPreconditionError):
    """The registry quarantined the version."""

    reason = "PARITY_BELOW_GATE"

    def __init__(self, version: str, agreement: float) -> None:
        description = f"the exported graph agrees with the trained network on {agreement:.4%} of the images"
        super().__init__(
            f"{version} is quarantined: {description}", [PreconditionViolation("PARITY", version, description)]
        )


class RegistryRefusedError(errors.FailedPreconditionError):
    """The registry refused the model or the version, and would again."""

    reason = "REGISTRY_REFUSED"

    def __init__(self, model: object, message: str) -> None:
        super().__init__(
            f"the registry refused {model}: {message}", [PreconditionViolation("REGISTRY", str(model), message)]
        )


class PathNotAllowedError(errors.PermissionDeniedError):
    """The operator has not allowed imports from this path."""

    reason = "IMPORT_PATH_NOT_ALLOWED"

    def __init__(self, path: str, roots: tuple[Path, ...]) -> None:
        allowed = "is empty" if not roots else f"allows {', '.join(str(root) for root in roots)}"
        super().__init__(
            f"{path!r} is not below an allowed folder: the setting ENXERTO_TRAINING_IMPORT_ROOTS {allowed}; "
            "upload an archive instead, or ask the operator to allow the folder"
        )


class LocationNotAllowedError(errors.PermissionDeniedError):
    """The operator has not allowed imports from this location."""

    reason = "IMPORT_LOCATION_NOT_ALLOWED"

    def __init__(self, uri: str, locations: tuple[str, ...]) -> None:
        allowed = "is empty" if not locations else f"allows {', '.join(locations)}"
        super().__init__(
            f"{uri!r} is not below an allowed location: the setting ENXERTO_TRAINING_IMPORT_LOCATIONS {allowed}; "
            "upload an archive instead, or ask the operator to allow the location"
        )


class RequestIdReusedError(errors.AlreadyExistsError):
    """The same request id came with another content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        message = f"request_id {request_id!r} was used before for a request with other content"
        super().__init__("Request", request_id, message)


class SourceRefusedError(errors.InvalidArgumentError):
    """The images, or the archive around them, have errors; nothing was stored."""

    reason = "SOURCE_REFUSED"


class UploadMismatchError(errors.InvalidArgumentError):
    """The bytes are not what the header announced."""

    reason = "UPLOAD_MISMATCH"


class ArchiveTooLargeError(errors.ResourceExhaustedError):
    """The archive is larger than this service accepts."""

    reason = "ARCHIVE_TOO_LARGE"


class GpuMemoryError(errors.ResourceExhaustedError):
    """A GPU's memory is too small for the job."""

    reason = "OUT_OF_GPU_MEMORY"

    def __init__(self, asked: str) -> None:
        super().__init__(_too_small("the GPU's memory", asked), subject="the GPU's memory")


class MachineMemoryError(errors.ResourceExhaustedError):
    """A machine's memory is too small for the job."""

    reason = "OUT_OF_MEMORY"

    def __init__(self, asked: str) -> None:
        super().__init__(_too_small("the machine's memory", asked), subject="the machine's memory")


def _too_small(what: str, asked: str) -> str:
    more = f" (there was no room for {asked} more)" if asked else ""
    return (
        f"{what} is too small{more}: give a smaller batch_size or image_size; with accumulation_steps, a step of the "
        "optimiser learns from as many images as before"
    )


class DiskFullError(errors.ResourceExhaustedError):
    """A job has no room to write."""

    reason = "DISK_FULL"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the disk of the folder {folder} is full: make room there and start again", subject=str(folder)
        )


class InquiriesFullError(errors.ResourceExhaustedError):
    """So many questions are being worked on that another must wait."""

    reason = "INQUIRIES_FULL"

    def __init__(self, most: int) -> None:
        text = f"{most} estimates, recommendations and checks of weights are being worked on, which is the most"
        super().__init__(text, subject="inquiries", retry_after_s=10.0)


class StaleRevisionError(errors.AbortedError):
    """Someone else changed the resource first."""

    def __init__(self, name: object) -> None:
        super().__init__(f"{name} changed since it was read")


class ServiceStoppingError(errors.UnavailableError):
    """This process is draining."""

    reason = "SERVICE_STOPPING"

    def __init__(self) -> None:
        super().__init__("the service is stopping; reconnect with the last cursor", retry_after_s=1.0)


class WorkersLostError(errors.UnavailableError):
    """A job's workers died, with their machine or alone, oftener than they are replaced."""

    reason = "WORKERS_LOST"

    def __init__(self, name: object, times: int, last: str) -> None:
        super().__init__(f"{name}: its workers died {times} times, which is the most; the last time: {last}")


class JobLostError(errors.UnavailableError):
    """The cluster lost the run's job as often as the service is willing to submit it."""

    reason = "JOB_LOST"

    def __init__(self, name: object, attempts: int, last: str) -> None:
        super().__init__(f"{name}: the job ended without a result {attempts} times; the last time: {last}")


class BaseModelMissingError(errors.NotFoundError):
    """The catalogue has no such base model."""

    reason = "BASE_MODEL_NOT_FOUND"

    def __init__(self, name: object, choices: str) -> None:
        super().__init__("BaseModel", str(name), f"there is no {name}; {choices}")


class JobRefusedError(errors.FailedPreconditionError):
    """The cluster refused the run's job, and would again."""

    reason = "JOB_REFUSED"

    def __init__(self, name: object, message: str) -> None:
        super().__init__(
            f"the cluster refused the job of {name}: {message}", [PreconditionViolation("CLUSTER", str(name), message)]
        )


class RunBrokenError(errors.DataLossError):
    """The service cannot make sense of what a run left behind."""

    reason = "RUN_BROKEN"

    def __init__(self, name: object, uid: str) -> None:
        super().__init__(f"{name} could not be driven on; the service's log tells why under run {uid}")
