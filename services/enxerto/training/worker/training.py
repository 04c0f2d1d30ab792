"""The train function: what every worker of a run does. Plain torch; Ray only says where the worker stands."""

import logging
import time

import obstore

from enxerto.kernel.errors import EnxertoError, FailedPreconditionError, InvalidArgumentError
from enxerto.runtime.error_table import to_status
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.adapters.object_store import failure_key
from enxerto.training.domain import JobStarted, JobTrained
from enxerto.training.worker.order import IMPORTED, JobOrder, read_spec
from enxerto.training.worker.outcome import store_outcome
from enxerto.training.worker.reporter import Reporter
from enxerto.vision.catalogue import get_facts
from enxerto.vision.snapshots import read_manifest
from enxerto.vision.specs import Split
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.data import load_data, load_split
from enxerto.vision.torch.devices import choose_compute, detect
from enxerto.vision.torch.evaluate import evaluate
from enxerto.vision.torch.finetune import finetune
from enxerto.vision.torch.weights import WeightsSources

logger = logging.getLogger(__name__)

_PROGRESS_INTERVAL_S = 0.5


def train(order: JobOrder, where: Distribution) -> None:
    """Train, evaluate, export and store the result.

    A failure is written down in its own words before it is raised. A worker that is alone does not raise what another
    try would not change.
    """
    try:
        _train(order, where)
    except EnxertoError as error:
        logger.exception("training refused")
        status = to_status(error).SerializeToString()
        obstore.put(order.store(), failure_key(order.uid, order.attempt), status)
        if where.world_size > 1 or not isinstance(error, FailedPreconditionError | InvalidArgumentError):
            raise


def _train(order: JobOrder, where: Distribution) -> None:
    leads = where.rank == 0
    with Reporter(EventLogWriter(order.store(), order.uid, order.attempt), where.world_size) as reporter:
        if leads:
            reporter.send(JobStarted())
            reporter.phase("preparing")
        spec, blobs = read_spec(order), order.blobs()
        facts = get_facts(spec.run.finetune.base_model)
        manifest = read_manifest(blobs, spec.manifest_sha256)
        reporter.image_count = manifest.count(Split.TRAIN)
        compute = choose_compute(detect(), workers_per_machine=where.local_world_size, local_rank=where.local_rank)
        told = time.monotonic()

        def loaded(done: int, total: int) -> None:
            nonlocal told
            if leads and time.monotonic() - told >= _PROGRESS_INTERVAL_S:
                told = time.monotonic()
                reporter.phase("preparing", done * where.world_size, total * where.world_size)

        data = load_data(
            manifest,
            blobs,
            facts.preprocess,
            augment=spec.run.finetune.augment,
            rank=where.rank,
            world_size=where.world_size,
            threads=compute.threads,
            limits=IMPORTED,
            progress=loaded,
        )
        result = finetune(
            spec.run.finetune,
            data,
            sources=_sources(order),
            report=reporter.epoch if leads else lambda _: None,
            step=reporter.step if leads else None,
            distribution=where,
            compute=compute,
        )
        held_out = Split.TEST if manifest.count(Split.TEST) else Split.VAL
        if leads:
            reporter.phase("evaluating", total=manifest.count(held_out))
        images = data.val
        if held_out is Split.TEST:
            images = load_split(
                manifest,
                blobs,
                held_out,
                facts.preprocess,
                rank=where.rank,
                world_size=where.world_size,
                threads=compute.threads,
                limits=IMPORTED,
            )
        evaluation = evaluate(result.network, images, len(manifest.class_names), distribution=where, compute=compute)
        if not leads:
            return
        reporter.phase("exporting")
        store_outcome(
            order,
            spec,
            facts,
            manifest,
            result,
            evaluation=evaluation,
            split=held_out,
            val=data.val,
            threads=compute.threads,
        )
        reporter.send(JobTrained())
        reporter.flush()


def _sources(order: JobOrder) -> WeightsSources:
    return WeightsSources(
        folder=order.weights_folder,
        cache=order.cache_folder / "weights",
        download=order.weights_download,
    )
