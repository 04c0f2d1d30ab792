"""The train function: what every worker of a run does. Plain torch; Ray only says where the worker stands."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from enxerto.training.adapters.event_log import EventLogWriter
from enxerto.training.domain import JobStarted, JobTrained
from enxerto.training.worker.checkpoints import StoredCheckpoints
from enxerto.training.worker.explanations import explain
from enxerto.training.worker.failures import failed_for_good, write_failure
from enxerto.training.worker.order import IMPORTED, JobOrder, read_spec
from enxerto.training.worker.outcome import store_outcome
from enxerto.training.worker.reporter import Reporter
from enxerto.vision.catalogue import BaseModelFacts, get_facts
from enxerto.vision.finetuning import FinetuneSpec
from enxerto.vision.snapshots import BlobSource, read_manifest
from enxerto.vision.specs import Split
from enxerto.vision.torch.base_models import DEFAULT_ENCODER
from enxerto.vision.torch.collectives import Distribution
from enxerto.vision.torch.devices import choose_compute, detect
from enxerto.vision.torch.recipe import Job
from enxerto.vision.torch.recipes import get_recipe
from enxerto.vision.torch.weights import WeightsSources

logger = logging.getLogger(__name__)


def train(order: JobOrder, where: Distribution) -> None:
    """Train, evaluate, export and store the result.

    A failure is written down in its own words before it is raised. A worker that is alone does not raise what another
    try would not change; with several, the others wait for this one and must be ended.
    """
    if failed_for_good(order):
        return
    try:
        _train(order, where)
    except Exception as error:
        logger.exception("training failed")
        final = write_failure(order, explain(error, order))
        if where.world_size > 1 or not final:
            raise


def _train(order: JobOrder, where: Distribution) -> None:
    leads = where.rank == 0
    with Reporter(EventLogWriter(order.store(), order.uid, order.attempt), where.world_size) as reporter:
        if leads:
            reporter.send(JobStarted())
            reporter.phase("preparing")
        spec, blobs = read_spec(order), order.blobs()
        finetune = spec.run.finetune
        facts, machine = get_facts(finetune.base_model), detect(gpus=order.use_gpu is not False)
        if leads and order.use_gpu and not machine.cuda_devices:
            reporter.warn("trains on CPUs: each worker has a GPU, which torch cannot use on this machine")
        manifest = read_manifest(blobs, spec.manifest_sha256)
        reporter.image_count = manifest.count(Split.TRAIN)
        checkpoints = StoredCheckpoints(order.store(), order.uid, reporter.checkpoint)
        with weights_sources(order, spec.weights, blobs, pretrained_part(facts, finetune)) as sources:
            job = Job(
                spec=finetune,
                facts=facts,
                manifest=manifest,
                blobs=blobs,
                sources=sources,
                where=where,
                compute=choose_compute(
                    machine,
                    precision=finetune.precision,
                    workers_per_machine=where.local_world_size,
                    local_rank=where.local_rank,
                ),
                checkpoints=checkpoints,
                limits=IMPORTED,
                **(_told(reporter) if leads else {}),
            )
            job.compute.claim_threads()
            recipe = get_recipe(facts.task)
            trained = recipe.train(job)
            if not leads:
                return
            store_outcome(order, spec, job, recipe, trained)
        reporter.send(JobTrained())
        reporter.flush()
        checkpoints.clear()


def _told(reporter: Reporter) -> dict[str, Any]:
    return {
        "on_epoch": reporter.epoch,
        "on_step": reporter.step,
        "on_phase": reporter.phase,
        "on_log": reporter.log,
    }


def pretrained_part(facts: BaseModelFacts, finetune: FinetuneSpec) -> str:
    """The base model whose weights a run loads: its encoder, where the base model takes one."""
    return finetune.encoder or (DEFAULT_ENCODER if facts.takes_encoder else facts.name)


@contextlib.contextmanager
def weights_sources(
    order: JobOrder, imported: Mapping[str, str], blobs: BlobSource, pretrained: str
) -> Iterator[WeightsSources]:
    """Where a base model's weights come from on this machine.

    Args:
        order: of the job.
        imported: sha256 of weights that were imported by hand, by base model.
        blobs: where those are.
        pretrained: the base model whose weights are wanted.
    """
    with contextlib.ExitStack() as stack:
        sha256 = imported.get(pretrained)
        yield WeightsSources(
            blob=stack.enter_context(blobs.open(sha256)) if sha256 else None,
            folder=order.weights_folder,
            cache=order.cache_folder / "weights",
            download=order.weights_download,
        )
