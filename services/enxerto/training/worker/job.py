"""The job's entry: starts the workers through Ray and reports what they could not report themselves."""

import logging
import os
import shutil
from typing import Any

# Before Ray is imported: without it every message of a worker would also go through the driver.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import obstore
import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from enxerto.runtime.allocator import ALLOCATOR_ENVIRONMENT
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.adapters.object_store import result_key
from enxerto.training.domain import JobFailed
from enxerto.training.errors import WorkersLostError
from enxerto.training.worker.deaths import death_in
from enxerto.training.worker.failures import last_word, may_pass
from enxerto.training.worker.order import TRAIN, JobOrder, read_spec, with_device

logger = logging.getLogger(__name__)

_NICENESS = 5
"""Of what trains: where replicas have the same cores, they get three times as much of them, for somebody waits."""


def run_job(order: JobOrder) -> int:
    """Run the order to its end and return the exit status.

    An exit status other than 0 without a last word in the log means that nothing is known against another attempt.
    """
    ray.init(address="auto", log_to_driver=False, runtime_env={"env_vars": ALLOCATOR_ENVIRONMENT})
    order, lost = with_device(order, _cluster_gpus()), None
    if order.mode == TRAIN:
        lost = _train(order)
    else:
        _inquire(order)
    if not _has_result(order):
        if lost is None and may_pass(order):
            return 1
        EventLogWriter(order.store(), order.uid, order.attempt).append(JobFailed(last_word(order, lost)))
    return 0


def _train(order: JobOrder) -> WorkersLostError | None:
    spec = read_spec(order)
    workers = spec.run.num_workers
    storage = order.cache_folder / "ray"
    name = f"{order.uid}-{order.attempt}"
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"order": order},
        # Ray's own choice on GPUs, NCCL alone, cannot send what lies in the memory of the CPU.
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if order.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=bool(order.use_gpu),
            # Said in any case: with a GPU, Ray's own default reserves no CPU at all.
            resources_per_worker={"CPU": order.cpus_per_worker},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            # A worker that dies takes the others of its group with it; all go on from the last checkpoint.
            failure_config=ray.train.FailureConfig(max_failures=order.worker_restarts),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        logger.exception("training failed")
        death = death_in(error)
        return WorkersLostError(spec.name, order.worker_restarts + 1, death) if death else None
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
    return None


def _train_function(config: dict[str, JobOrder]) -> None:
    # Here and not above: the driver needs neither the networks nor their libraries.
    from enxerto.training.worker.training import train  # noqa: PLC0415
    from enxerto.vision.torch.collectives import Distribution  # noqa: PLC0415

    os.nice(_NICENESS)
    context = ray.train.get_context()
    train(
        config["order"],
        Distribution(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            local_rank=context.get_local_rank(),
            local_world_size=context.get_local_world_size(),
        ),
    )


def _inquire(order: JobOrder) -> None:
    gpus = 1 if order.use_gpu else 0
    remote = ray.remote(num_cpus=order.cpus_per_worker, num_gpus=gpus, max_retries=order.worker_restarts)
    try:
        ray.get(remote(_inquire_function).remote(order))
    except ray.exceptions.RayError:
        logger.exception("the inquiry failed")


def _inquire_function(order: JobOrder) -> None:
    from enxerto.training.worker.inquiries import answer  # noqa: PLC0415

    os.nice(_NICENESS)
    answer(order, _this_machine())


def _this_machine() -> dict[str, float]:
    here = ray.get_runtime_context().get_node_id()
    machines: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return next((one["Resources"] for one in machines if one["NodeID"] == here), {})


def _cluster_gpus() -> float:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("GPU", 0.0)


def _has_result(order: JobOrder) -> bool:
    try:
        obstore.head(order.store(), result_key(order.uid, order.attempt))
    except FileNotFoundError:
        return False
    return True
