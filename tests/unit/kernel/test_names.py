"""Names are parsed once, strictly, and print as they were read."""

import pytest

from enxerto.kernel.errors import InvalidArgumentError, Violations
from enxerto.kernel.names import (
    BaseModelName,
    DatasetName,
    DeploymentName,
    ModelName,
    ProjectName,
    ResourceName,
    RunName,
    SnapshotName,
    VersionName,
    VersionReference,
    is_sha256,
)

GOOD: list[tuple[str, ResourceName]] = [
    ("projects/default", ProjectName("default")),
    ("projects/p/models/m-1", ModelName("p", "m-1")),
    ("projects/p/models/m/versions/12", VersionName("p", "m", 12)),
    ("projects/p/models/m/versions/999999999", VersionName("p", "m", 999_999_999)),
    ("projects/p/models/m/versions/12", VersionReference("p", "m", "12")),
    ("projects/p/models/m/versions/production", VersionReference("p", "m", "production")),
    ("projects/p/datasets/d", DatasetName("p", "d")),
    ("projects/p/datasets/d/snapshots/1", SnapshotName("p", "d", 1)),
    ("projects/p/trainingRuns/r", RunName("p", "r")),
    ("projects/p/deployments/d", DeploymentName("p", "d")),
    ("baseModels/efficientnet-lite0", BaseModelName("efficientnet-lite0")),
]


@pytest.mark.parametrize(("text", "name"), GOOD, ids=[f"{type(name).__name__}-{text}" for text, name in GOOD])
def test_a_name_is_read_and_printed(text: str, name: ResourceName) -> None:
    assert type(name).parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize(
    "text",
    [
        "projects/p/models/m/versions/0",
        "projects/p/models/m/versions/01",
        "projects/p/models/m/versions/-1",
        "projects/p/models/m/versions/١",
        "projects/p/models/m/versions/1\n",
        "projects/p/models/m/versions/1000000000",
        "projects/p/models/m/versions/",
        "projects/p/models/m/versions/1/",
        "/projects/p/models/m/versions/1",
        "projects/p/models/M/versions/1",
        "projects/p/models/../versions/1",
        "projects/p/model/m/versions/1",
        "projects/p/models/m",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert VersionName.try_parse(text) is None
    with pytest.raises(InvalidArgumentError) as caught:
        VersionName.parse(text, "version")
    (violation,) = caught.value.violations
    assert violation.field == "version"
    assert "projects/{project}/models/{model}/versions/{number}" in violation.description


@pytest.mark.parametrize("text", ["", "a" * 64, "1a", "-a", "a-", "a_b", "a.b", "é", "a b", "A"])
def test_bad_ids(text: str) -> None:
    assert ProjectName.try_parse(f"projects/{text}") is None


@pytest.mark.parametrize("text", ["a", "a" * 63, "a1", "a-1", "a--b"])
def test_good_ids(text: str) -> None:
    assert ProjectName.try_parse(f"projects/{text}") == ProjectName(text)


def test_a_number_is_a_number() -> None:
    assert type(VersionName.parse("projects/p/models/m/versions/12").number) is int
    assert VersionReference.parse("projects/p/models/m/versions/12").number == 12
    assert VersionReference.parse("projects/p/models/m/versions/x").number is None
    assert SnapshotName.parse("projects/p/datasets/d/snapshots/2").number == 2


def test_parents() -> None:
    assert VersionName("p", "m", 1).parent == ModelName("p", "m")
    assert ModelName("p", "m").parent == ProjectName("p")
    assert SnapshotName("p", "d", 1).parent == DatasetName("p", "d")


def test_all_bad_names_are_gathered() -> None:
    violations = Violations()
    assert ProjectName.check("", "parent", violations) is None
    assert VersionReference.check("x", "version", violations) is None
    with pytest.raises(InvalidArgumentError) as caught:
        violations.raise_if_any()
    assert [violation.field for violation in caught.value.violations] == ["parent", "version"]
    assert caught.value.violations[0].description == "is required: projects/{project}"
    assert "{number or alias}" in caught.value.violations[1].description
    assert caught.value.message.endswith("(and 1 more)")


@pytest.mark.parametrize(("text", "good"), [("a" * 64, True), ("A" * 64, False), ("a" * 63, False), ("g" * 64, False)])
def test_digests(text: str, good: bool) -> None:
    assert is_sha256(text) is good
