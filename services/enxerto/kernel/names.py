"""Resource names as types: parsed once at the edge, never split again.

Patterns follow AIP-122. A final id is 1 to 63 lower-case letters, digits and hyphens and starts with a letter.
"""

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from enxerto.kernel.errors import Violations

_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# What every database takes for an INTEGER: 32 bits.
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_FILENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Field types are compared with `int` below, so that this module must not postpone its annotations.
ID_RULE = "must be 1 to 63 lower-case letters, digits and hyphens, start with a letter and not end with a hyphen"
_NUMBER_RULE = "a number is 1 to 999999999"


def is_id(text: str) -> bool:
    """Whether `text` may be the last part of a name."""
    return _ID.fullmatch(text) is not None


def is_number(text: str) -> bool:
    """Whether `text` is the number of a version or a snapshot."""
    return _NUMBER.fullmatch(text) is not None


def is_filename(text: str) -> bool:
    """Whether `text` may name a file: letters, digits, dots, underscores and hyphens, the first a letter or a digit."""
    return _FILENAME.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Whether `text` is a lower-case hexadecimal sha256."""
    return _SHA256.fullmatch(text) is not None


# Parts that need not be ids, by the field that holds them.
_OTHER_PARTS = {"version": is_number, "filename": is_filename}


def check_id(text: str, field: str, violations: Violations) -> str:
    """Return `text`, noting a violation of `field` when it may not be an id."""
    if not is_id(text):
        violations.add(field, ID_RULE)
    return text


@dataclass(frozen=True, slots=True, order=True)
class ResourceName:
    """A name made of `collection/id` pairs; subclasses give the collections in `PATTERN`."""

    PATTERN: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def template(cls) -> str:
        """The pattern for people, such as `projects/{project}/models/{model}`."""
        names = [field.name for field in fields(cls)]
        return "/".join(f"{collection}/{{{name}}}" for collection, name in zip(cls.PATTERN, names, strict=True))

    @classmethod
    def try_parse(cls, text: str) -> Self | None:
        """Parse a full name, or return None when it does not fit the pattern."""
        parts = text.split("/")
        if len(parts) != 2 * len(cls.PATTERN) or tuple(parts[::2]) != cls.PATTERN:
            return None
        values = []
        for field, part in zip(fields(cls), parts[1::2], strict=True):
            if field.type is int:
                if not is_number(part):
                    return None
                values.append(int(part))
            elif is_id(part) or _OTHER_PARTS.get(field.name, is_id)(part):
                values.append(part)  # type: ignore[arg-type]
            else:
                return None
        return cls(*values)

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Parse a full name.

        Raises:
            InvalidArgumentError: names `field` when the text does not fit the pattern.
        """
        violations = Violations()
        name = cls.check(text, field, violations)
        violations.raise_if_any()
        assert name is not None
        return name

    @classmethod
    def check(cls, text: str, field: str, violations: Violations) -> Self | None:
        """Parse a full name, noting a violation of `field` and returning None when it does not fit."""
        name = cls.try_parse(text)
        if name is None:
            if text:
                rules = [f"an id {ID_RULE}", *([_NUMBER_RULE] if "{number" in cls.template() else [])]
                violations.add(field, f"must be of the form {cls.template()}; {'; '.join(rules)}")
            else:
                violations.add(field, f"is required: {cls.template()}")
        return name

    def __str__(self) -> str:
        names: tuple[str, ...] = self.__match_args__
        values = [getattr(self, name) for name in names]
        return "/".join(f"{collection}/{value}" for collection, value in zip(self.PATTERN, values, strict=True))


@dataclass(frozen=True, slots=True, order=True)
class ProjectName(ResourceName):
    """The unit of tenancy."""

    PATTERN: ClassVar = ("projects",)
    project: str


@dataclass(frozen=True, slots=True, order=True)
class ModelName(ResourceName):
    """A model of the registry."""

    PATTERN: ClassVar = ("projects", "models")
    project: str
    model: str

    @property
    def parent(self) -> ProjectName:
        """The project that holds it."""
        return ProjectName(self.project)


@dataclass(frozen=True, slots=True, order=True)
class VersionName(ResourceName):
    """A version by its number."""

    PATTERN: ClassVar = ("projects", "models", "versions")
    project: str
    model: str
    number: int

    @property
    def parent(self) -> ModelName:
        """The model that holds it."""
        return ModelName(self.project, self.model)


@dataclass(frozen=True, slots=True, order=True)
class VersionReference(ResourceName):
    """A version by its number or by an alias."""

    PATTERN: ClassVar = ("projects", "models", "versions")
    project: str
    model: str
    version: str

    @classmethod
    def template(cls) -> str:
        """The pattern, saying that the last part is a number or an alias."""
        return "projects/{project}/models/{model}/versions/{number or alias}"

    @property
    def parent(self) -> ModelName:
        """The model that holds it."""
        return ModelName(self.project, self.model)

    @property
    def number(self) -> int | None:
        """The number, or None for an alias."""
        return int(self.version) if is_number(self.version) else None


@dataclass(frozen=True, slots=True, order=True)
class DatasetName(ResourceName):
    """A dataset of the training service."""

    PATTERN: ClassVar = ("projects", "datasets")
    project: str
    dataset: str

    @property
    def parent(self) -> ProjectName:
        """The project that holds it."""
        return ProjectName(self.project)


@dataclass(frozen=True, slots=True, order=True)
class SnapshotName(ResourceName):
    """A snapshot of a dataset by its number."""

    PATTERN: ClassVar = ("projects", "datasets", "snapshots")
    project: str
    dataset: str
    number: int

    @property
    def parent(self) -> DatasetName:
        """The dataset that holds it."""
        return DatasetName(self.project, self.dataset)


@dataclass(frozen=True, slots=True, order=True)
class RunName(ResourceName):
    """A training run."""

    PATTERN: ClassVar = ("projects", "trainingRuns")
    project: str
    run: str

    @property
    def parent(self) -> ProjectName:
        """The project that holds it."""
        return ProjectName(self.project)


@dataclass(frozen=True, slots=True, order=True)
class RunFileName(ResourceName):
    """A file that a training run has left."""

    PATTERN: ClassVar = ("projects", "trainingRuns", "files")
    project: str
    run: str
    filename: str

    @property
    def parent(self) -> RunName:
        """The run that left it."""
        return RunName(self.project, self.run)


@dataclass(frozen=True, slots=True, order=True)
class SweepName(ResourceName):
    """A search for hyperparameters."""

    PATTERN: ClassVar = ("projects", "sweeps")
    project: str
    sweep: str

    @property
    def parent(self) -> ProjectName:
        """The project that holds it."""
        return ProjectName(self.project)


@dataclass(frozen=True, slots=True, order=True)
class DeploymentName(ResourceName):
    """A deployment of the inference service."""

    PATTERN: ClassVar = ("projects", "deployments")
    project: str
    deployment: str

    @property
    def parent(self) -> ProjectName:
        """The project that holds it."""
        return ProjectName(self.project)


@dataclass(frozen=True, slots=True, order=True)
class SampleName(ResourceName):
    """An image that a deployment kept for labelling."""

    PATTERN: ClassVar = ("projects", "deployments", "samples")
    project: str
    deployment: str
    sample: str

    @property
    def parent(self) -> DeploymentName:
        """The deployment that kept it."""
        return DeploymentName(self.project, self.deployment)


@dataclass(frozen=True, slots=True, order=True)
class BaseModelName(ResourceName):
    """A pretrained network of the catalogue."""

    PATTERN: ClassVar = ("baseModels",)
    base_model: str
