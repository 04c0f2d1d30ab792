"""Use cases of what is asked before training: what a run would take, and which base model suits the images."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from enxerto import __version__
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import DataLossError
from enxerto.kernel.names import ProjectName, SnapshotName
from enxerto.training.domain import (
    BaseModelRanking,
    BaseModelScore,
    Inquiry,
    InquiryKind,
    Progress,
    RunSpec,
    SnapshotState,
    TrainingEstimate,
)
from enxerto.training.errors import SnapshotNotReadyError, TaskMismatchError
from enxerto.training.ports import DatasetStore, JobRunner, SpecDocument
from enxerto.training.service.inquiries import Inquiries
from enxerto.training.service.runs import trainable
from enxerto.training.service.weights import WeightsSupply
from enxerto.vision.catalogue import BaseModelFacts, list_facts
from enxerto.vision.specs import Task


class Questions:
    """Asks the cluster and reads its answers.

    An answer is given again to whoever asks the same on the same day (UTC), of a cluster with as many CPUs and GPUs and
    by the same version of this software; otherwise it is measured anew.
    """

    def __init__(
        self,
        datasets: DatasetStore,
        weights: WeightsSupply,
        inquiries: Inquiries,
        document: SpecDocument,
        *,
        jobs: JobRunner,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._datasets = datasets
        self._weights = weights
        self._inquiries = inquiries
        self._document = document

    async def estimate(self, parent: ProjectName, spec: RunSpec) -> AsyncIterator[Progress | TrainingEstimate]:
        """What a run would take: progress first, the estimate last.

        Raises:
            NotFoundError: the snapshot is not there.
            SnapshotNotReadyError: it is not READY.
            TaskMismatchError: the base model is for another task than the dataset.
        """
        content = await trainable(self._datasets, spec)
        document = {
            "name": f"estimate for {spec.model}",
            "spec": dict(self._document(spec)),
            "snapshot_digest": content.digest,
            "manifest_sha256": content.manifest_sha256,
            "weights": dict(await self._weights.supply(spec.finetune)),
        }
        async for found in self._ask(InquiryKind.ESTIMATE, parent, document, workers=spec.num_workers):
            yield found if isinstance(found, Progress) else _estimate(found)

    async def recommend(
        self, parent: ProjectName, name: SnapshotName, base_models: Sequence[BaseModelFacts], max_images: int
    ) -> AsyncIterator[Progress | BaseModelRanking]:
        """Which base models suit: progress first, the ranking last.

        Raises:
            NotFoundError: the snapshot is not there.
            SnapshotNotReadyError: it is not READY.
            TaskMismatchError: it is not of a dataset for classification.
        """
        snapshot = await self._datasets.get_snapshot(name)
        if snapshot.state is not SnapshotState.READY or snapshot.content is None:
            raise SnapshotNotReadyError(name, snapshot.state)
        dataset = await self._datasets.get_dataset(name.parent)
        if dataset.task is not Task.CLASSIFICATION:
            raise TaskMismatchError("the ranking of base models", Task.CLASSIFICATION, dataset.name, dataset.task)
        chosen = tuple(facts.name for facts in base_models) or await self._available()
        document = {
            "name": f"recommendation for {name}",
            "snapshot_digest": snapshot.content.digest,
            "manifest_sha256": snapshot.content.manifest_sha256,
            "base_models": list(chosen),
            "max_images": max_images,
            "weights": dict(await self._weights.supply_all(chosen)),
        }
        async for found in self._ask(InquiryKind.RECOMMEND, parent, document):
            yield found if isinstance(found, Progress) else _ranking(found)

    async def _available(self) -> tuple[str, ...]:
        """Backbones whose weights are there without a download."""
        imported = await self._weights.digests()
        return tuple(
            facts.name
            for facts in list_facts()
            if facts.task is Task.CLASSIFICATION and (facts.works_offline or facts.name in imported)
        )

    async def _ask(
        self, kind: InquiryKind, parent: ProjectName, document: Mapping[str, object], *, workers: int = 1
    ) -> AsyncIterator[Progress | Mapping[str, Any]]:
        """Ask a job on the kind of device that as many workers of a run would have."""
        size = await self._jobs.size(())
        document = {**document, "use_gpu": size.has_gpus_for(workers)}
        holds_for = {
            # Each project has its own answers, so that nobody learns from their speed what another has asked.
            "parent": str(parent),
            "cluster": [size.cpus, size.gpus],
            "software": __version__,
            "day": self._clock.now().date().isoformat(),
        }
        uid = Inquiries.uid(kind, {**document, **holds_for})
        async for found in self._inquiries.ask(Inquiry(kind, parent, uid, document)):
            yield found


def _estimate(answer: Mapping[str, Any]) -> TrainingEstimate:
    try:
        return TrainingEstimate(**answer)
    except TypeError as error:
        raise DataLossError(f"the estimate cannot be read: {error}") from error


def _ranking(answer: Mapping[str, Any]) -> BaseModelRanking:
    try:
        scores = tuple(BaseModelScore(**one) for one in answer["scores"])
        return BaseModelRanking(scores, dict(answer["skipped"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataLossError(f"the ranking cannot be read: {error}") from error
