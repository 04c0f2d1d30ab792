"""The job's entry: starts the workers through Ray Train and reports what they could not report themselves."""

import logging
import os
import shutil

# Before Ray is imported: without it every message of a worker would also go through the driver.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import obstore
import ray
import ray.train
from ray.train.torch import TorchTrainer

from enxerto.runtime.error_table import internal_status
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.adapters.object_store import failure_key, result_key
from enxerto.training.domain import JobFailed
from enxerto.training.worker.order import JobOrder, read_spec

logger = logging.getLogger(__name__)


def run_job(order: JobOrder) -> int:
    """Run the order to its end and return the exit status.

    Exit status 1 without a last word in the log means that nothing is known against another attempt.
    """
    workers = read_spec(order).run.num_workers
    ray.init(address="auto", log_to_driver=False)
    storage = order.cache_folder / "ray"
    name = f"{order.uid}-{order.attempt}"
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"order": order},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=_cluster_gpus() >= workers),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            # One worker may be lost with its machine; what fails twice would fail again.
            failure_config=ray.train.FailureConfig(max_failures=1),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError:
        logger.exception("training failed")
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
    if _exists(order, result_key(order.uid, order.attempt)):
        return 0
    EventLogWriter(order.store(), order.uid, order.attempt).append(JobFailed(_failure(order)))
    return 0


def _train_function(config: dict[str, JobOrder]) -> None:
    # Here and not above: the driver needs neither the networks nor their libraries.
    from enxerto.training.worker.training import train  # noqa: PLC0415
    from enxerto.vision.torch.collectives import Distribution  # noqa: PLC0415

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


def _cluster_gpus() -> float:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("GPU", 0.0)


def _failure(order: JobOrder) -> bytes:
    """What a worker wrote down, or that something unforeseen happened."""
    key = failure_key(order.uid, order.attempt)
    if _exists(order, key):
        return bytes(obstore.get(order.store(), key).bytes())
    status = internal_status(f"{order.uid}-{order.attempt}")
    status.message = f"training failed; the cluster's log of the job {order.uid}-{order.attempt} tells why"
    encoded: bytes = status.SerializeToString()
    return encoded


def _exists(order: JobOrder, key: str) -> bool:
    try:
        obstore.head(order.store(), key)
    except FileNotFoundError:
        return False
    return True
