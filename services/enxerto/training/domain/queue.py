"""Which waiting runs may start: first come, first served, within each project's quota and the cluster's size. Pure."""

import enum
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from enxerto.training.domain.runs import TrainingRun
from enxerto.training.domain.states import RunState

_ROUNDING = 1e-9


class WaitReason(enum.StrEnum):
    """What a run waits for."""

    PROJECT_QUOTA = "PROJECT_QUOTA"
    CLUSTER_FULL = "CLUSTER_FULL"
    EARLIER_RUNS = "EARLIER_RUNS"
    RETRY = "RETRY"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Why a run waits."""

    position: int
    """Place in the queue, from 1; 0 of a run that has left it and waits inside Ray."""
    reason: WaitReason
    message: str
    """The same for people."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What Ray hands out of one machine."""

    cpus: float
    gpus: float = 0.0

    def room(self, cpus_per_worker: float, *, use_gpu: bool) -> int:
        """Workers that it holds while nothing else is there."""
        workers = math.floor(self.cpus / cpus_per_worker + _ROUNDING)
        return min(workers, math.floor(self.gpus)) if use_gpu else workers


@dataclass(frozen=True, slots=True)
class ClusterSize:
    """What the cluster has in all, and what of it is not there for training runs."""

    cpus: float
    gpus: float
    other_cpus: float = 0.0
    """Held by anything but training runs: replicas, other people's jobs, answers to questions."""
    other_gpus: float = 0.0
    machines: tuple[Machine, ...] = ()
    """Each of them; none where machines of another size may come."""

    def has_gpus_for(self, workers: int) -> bool:
        """Whether workers compute on GPUs, one each: where there are enough for all of them, and nowhere else."""
        return self.gpus >= workers


@dataclass(frozen=True, slots=True)
class QueueRules:
    """What limits the runs that train at the same time."""

    runs_per_project: int = 0
    """0 is no limit."""
    cpus_per_worker: float = 1.0
    """What Ray Train reserves for a worker. The job's own process reserves nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the runs that wait."""

    admitted: frozenset[str]
    """Uids of those that may be submitted now."""
    waiting: Mapping[str, QueueStatus]
    """By uid."""
    size: ClusterSize | None = None
    """Of the cluster, as the plan took it; None while it cannot be reached."""


def plan(runs: Sequence[TrainingRun], size: ClusterSize | None, rules: QueueRules) -> Plan:
    """Decide about every run that is not final.

    A run that would not fit if no other run trained waits without holding up those behind it; one that only does not
    fit beside them does, because smaller runs would otherwise pass it for ever. A project at its quota holds up nobody
    else.

    Args:
        runs: in the order in which they were created.
        size: of the cluster; None while it cannot be reached, so that nobody can start.
        rules: the limits.
    """
    holding = [run for run in runs if _holds(run)]
    cpus_of_runs = size.cpus - size.other_cpus if size else 0.0
    gpus_of_runs = size.gpus - size.other_gpus if size else 0.0
    free_cpus = cpus_of_runs - sum(_cpus(run, rules) for run in holding)
    free_gpus = gpus_of_runs - sum(_held_gpus(run, size) for run in holding) if size else 0.0
    workers_held = {
        False: sum(run.spec.num_workers for run in holding),
        True: sum(run.spec.num_workers for run in holding if size and _held_gpus(run, size)),
    }
    running = Counter(run.name.project for run in holding)
    admitted: set[str] = set()
    waiting: dict[str, QueueStatus] = {}
    blocked = False
    for run in runs:
        if run.state is not RunState.QUEUED or _holds(run):
            continue
        cpus, gpus, project = _cpus(run, rules), _gpus(run, size) if size else 0.0, run.name.project
        workers, use_gpu = run.spec.num_workers, gpus > 0
        room = _room(size, rules, use_gpu=use_gpu) if size else 0.0
        free_room = room - workers_held[use_gpu]
        if size is None:
            reason, text = WaitReason.RETRY, "the cluster cannot be reached; it is tried again"
        elif rules.runs_per_project and running[project] >= rules.runs_per_project:
            reason = WaitReason.PROJECT_QUOTA
            text = f"{running[project]} runs of projects/{project} train, which is its quota"
        elif cpus > size.cpus:
            reason = WaitReason.CLUSTER_FULL
            text = f"needs {cpus:g} CPUs and the whole cluster has {size.cpus:g}: waits until it grows"
        elif workers > room:
            reason = WaitReason.CLUSTER_FULL
            wanted = _described(run, rules, use_gpu=use_gpu)
            text = f"needs {wanted}, and the cluster's machines have room for {room:g}: waits until it grows"
        elif blocked:
            reason, text = WaitReason.EARLIER_RUNS, "runs that were created earlier wait for the cluster"
        elif cpus > free_cpus or gpus > free_gpus or workers > free_room:
            blocked = cpus <= cpus_of_runs and gpus <= gpus_of_runs
            reason = WaitReason.CLUSTER_FULL
            text = f"needs {cpus:g} CPUs and {_free(free_cpus, size.cpus, size.other_cpus)}"
            if gpus:
                text += f"; needs {gpus:g} GPUs and {_free(free_gpus, size.gpus, size.other_gpus)}"
            if cpus <= free_cpus and gpus <= free_gpus:
                wanted = _described(run, rules, use_gpu=use_gpu)
                text = f"needs {wanted}, and the cluster's machines have room for {max(free_room, 0):g} more"
        else:
            admitted.add(run.uid)
            running[project] += 1
            free_cpus -= cpus
            free_gpus -= gpus
            workers_held[False] += workers
            workers_held[True] += workers if use_gpu else 0
            continue
        waiting[run.uid] = QueueStatus(len(waiting) + 1, reason, text)
    return Plan(frozenset(admitted), waiting, size)


def unplaced(run: TrainingRun, rules: QueueRules) -> QueueStatus:
    """Why a run waits that was submitted and whose workers Ray does not start."""
    wanted = _described(run, rules, use_gpu=bool(run.use_gpu))
    text = f"was submitted, and Ray has not started its {wanted}: no machine has room for them, or they start slowly"
    return QueueStatus(0, WaitReason.CLUSTER_FULL, text)


def own_jobs(runs: Sequence[TrainingRun]) -> frozenset[str]:
    """The jobs whose part of the cluster `plan` counts itself."""
    return frozenset(run.job_id for run in runs if _holds(run))


def _holds(run: TrainingRun) -> bool:
    """Whether a job of the run has, or is about to have again, a part of the cluster."""
    return (run.announced and run.state is not RunState.REGISTERING) or run.state is RunState.RUNNING


def _free(free: float, total: float, other: float) -> str:
    text = f"{max(free, 0):g} of {total:g} are free"
    return f"{text}, {other:g} being held by replicas and other jobs" if other else text


def _described(run: TrainingRun, rules: QueueRules, *, use_gpu: bool) -> str:
    return f"{run.spec.num_workers} workers of {rules.cpus_per_worker:g} CPUs{' and a GPU' if use_gpu else ''}"


def _room(size: ClusterSize, rules: QueueRules, *, use_gpu: bool) -> float:
    """Workers that the machines hold in all. All are of one size, so that which of them goes where does not matter."""
    if not size.machines:
        return math.inf
    return sum(one.room(rules.cpus_per_worker, use_gpu=use_gpu) for one in size.machines)


def _cpus(run: TrainingRun, rules: QueueRules) -> float:
    return run.spec.num_workers * rules.cpus_per_worker


def _gpus(run: TrainingRun, size: ClusterSize) -> float:
    return float(run.spec.num_workers) if size.has_gpus_for(run.spec.num_workers) else 0.0


def _held_gpus(run: TrainingRun, size: ClusterSize) -> float:
    if run.use_gpu is None:
        return _gpus(run, size)
    return float(run.spec.num_workers) if run.use_gpu else 0.0
