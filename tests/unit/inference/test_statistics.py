"""What is counted of each version."""

from enxerto.inference.domain import MAX_TRAFFIC_TARGETS, Timing
from enxerto.inference.service.statistics import Statistics
from enxerto.kernel.names import DeploymentName, VersionName
from inference_front import SettableClock

PETS = DeploymentName("default", "pets")


def version(number: int) -> VersionName:
    return VersionName("default", "pets", number)


def test_versions_that_were_not_used_longest_are_forgotten() -> None:
    statistics, canaries = Statistics(SettableClock()), range(2, 3 * MAX_TRAFFIC_TARGETS)
    for number in canaries:
        for each in (version(1), version(number)):
            statistics.answered(PETS, each, 1, Timing(0, 0, 0, 0), 0.1)
    counted = statistics.of_deployment(PETS)
    assert set(counted) == {version(1), *map(version, canaries[-MAX_TRAFFIC_TARGETS - 1 :])}
    assert counted[version(1)].success.count == len(canaries)
