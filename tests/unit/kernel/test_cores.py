from pathlib import Path

import pytest

from enxerto.kernel.cores import usable_cores

V1, V2 = "4:memory:/pod\n3:cpu,cpuacct:/pod/app\n1:name=systemd:/\n", "0::/pod/app\n"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)


def cores(root: Path, membership: str, files: dict[str, str]) -> int:
    (root / "self").write_text(membership)
    for name, text in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(f"{text}\n")
    return usable_cores(root / "self", root / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (V2, {}, 64),
        (V2, {"pod/app/cpu.max": "max 100000"}, 64),
        (V2, {"pod/app/cpu.max": "400000 100000"}, 4),
        (V2, {"pod/app/cpu.max": "250000 100000"}, 2),
        (V2, {"pod/app/cpu.max": "50000 100000"}, 1),
        (V2, {"pod/app/cpu.max": "max 100000", "pod/cpu.max": "800000 100000"}, 8),
        # A container that is told a path of the host.
        (V2, {"cpu.max": "400000 100000"}, 4),
        (V2, {"cpu.max": "12800000 100000"}, 64),
        (V1, {"cpu/pod/app/cpu.cfs_quota_us": "-1", "cpu/pod/app/cpu.cfs_period_us": "100000"}, 64),
        (V1, {"cpu/pod/app/cpu.cfs_quota_us": "300000", "cpu/pod/app/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "50000"}, 3),
    ],
)
def test_a_container_has_the_cores_whose_time_it_may_take(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    assert cores(tmp_path, membership, files) == expected


def test_a_machine_without_control_groups_has_the_cores_that_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 64
