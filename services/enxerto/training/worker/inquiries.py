"""Questions that a job answers: what a run would take, which base model suits, whether weights fit."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from enxerto.kernel.errors import Violation
from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.adapters.object_store import put, result_key, store_errors
from enxerto.training.domain import InquiryKind, JobStarted, JobTrained
from enxerto.training.errors import WeightsRefusedError
from enxerto.training.worker.explanations import explain
from enxerto.training.worker.failures import failed_for_good, write_failure
from enxerto.training.worker.order import IMPORTED, JobOrder, read_document, read_spec
from enxerto.training.worker.reporter import Reporter
from enxerto.training.worker.training import pretrained_part, weights_sources
from enxerto.vision.catalogue import get_facts
from enxerto.vision.snapshots import read_manifest
from enxerto.vision.torch.base_models import check_weights
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import choose_compute, detect
from enxerto.vision.torch.estimate import estimate
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.recommend import Probing, recommend
from enxerto.vision.torch.weights import WeightsCorruptError, read_tensors

logger = logging.getLogger(__name__)


def answer(order: JobOrder, machine: Mapping[str, float] | None = None) -> None:
    """Answer the order's question and store the answer as JSON values where a run's result would be.

    A failure is written down in its own words; it is raised when another try might help.

    Args:
        order: with the question.
        machine: what Ray may hand out of this one, by resource; without it, enough for all workers of a run.
    """
    if failed_for_good(order):
        return
    try:
        _answer(order, machine or {})
    except Exception as error:
        logger.exception("inquiry failed")
        if not write_failure(order, explain(error, order)):
            raise


def _answer(order: JobOrder, machine: Mapping[str, float]) -> None:
    with Reporter(EventLogWriter(order.store(), order.uid, order.attempt), 1) as reporter:
        reporter.send(JobStarted())
        reporter.phase("preparing")
        value = _ANSWERS[InquiryKind(order.mode)](order, reporter, machine)
        key = result_key(order.uid, order.attempt)
        with store_errors(key):
            put(order.store(), key, json.dumps(value).encode())
        reporter.send(JobTrained())
        reporter.flush()


def _estimate(order: JobOrder, reporter: Reporter, machine: Mapping[str, float]) -> Mapping[str, Any]:
    spec, blobs = read_spec(order), order.blobs()
    finetune, workers = spec.run.finetune, spec.run.num_workers
    facts = get_facts(finetune.base_model)
    with weights_sources(order, spec.weights, blobs, pretrained_part(facts, finetune)) as sources:
        job = Job(
            spec=finetune,
            facts=facts,
            manifest=read_manifest(blobs, spec.manifest_sha256),
            blobs=blobs,
            sources=sources,
            where=Distribution(),
            compute=choose_compute(
                detect(gpus=order.use_gpu is not False),
                precision=finetune.precision,
                workers_per_machine=_workers_here(order, workers, machine),
            ),
            on_step=reporter.step,
            limits=IMPORTED,
        )
        job.compute.claim_threads()
        return estimate(job, get_recipe(facts.task), workers=workers).to_json()


def _workers_here(order: JobOrder, workers: int, machine: Mapping[str, float]) -> int:
    """How many of a run's workers share such a machine: Ray packs them onto as few as hold them."""
    room = int(machine.get("CPU", workers * order.cpus_per_worker) / order.cpus_per_worker)
    if order.use_gpu:
        room = min(room, int(machine.get("GPU", workers)))
    return max(1, min(workers, room))


def _recommend(order: JobOrder, reporter: Reporter, machine: Mapping[str, float]) -> Mapping[str, Any]:
    del machine
    document, blobs = read_document(order), order.blobs()
    imported: Mapping[str, str] = document.get("weights", {})
    probing = Probing(
        manifest=read_manifest(blobs, document["manifest_sha256"]),
        blobs=blobs,
        sources=lambda name: weights_sources(order, imported, blobs, name),
        compute=choose_compute(detect(gpus=order.use_gpu is not False)),
        limits=IMPORTED,
        max_images=int(document["max_images"]),
        on_progress=lambda done, total: reporter.phase("features", done, total),
    )
    return recommend(document["base_models"], probing).to_json()


def _check_weights(order: JobOrder, reporter: Reporter, machine: Mapping[str, float]) -> Mapping[str, Any]:
    del reporter, machine
    document = read_document(order)
    with order.incoming().open(document["sha256"]) as path:
        try:
            check_weights(get_facts(document["base_model"]), path)
        except WeightsCorruptError as error:
            # Not our data is lost: the file that somebody sent is not what it is said to be.
            raise WeightsRefusedError([Violation("chunk", str(error))]) from error
        return {"tensors": len(read_tensors(path))}


_ANSWERS: Mapping[InquiryKind, Callable[[JobOrder, Reporter, Mapping[str, float]], Mapping[str, Any]]] = {
    InquiryKind.ESTIMATE: _estimate,
    InquiryKind.RECOMMEND: _recommend,
    InquiryKind.CHECK_WEIGHTS: _check_weights,
}
