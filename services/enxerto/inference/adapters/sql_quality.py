"""Feedback, sampling policies and samples in SQLite or PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Integer, RowMapping, Table, and_, case, delete, func, insert, select, tuple_, union
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from enxerto.inference.adapters.sql_schema import feedback, samples, sampling_policies
from enxerto.inference.domain import FeedbackRecord, LiveAccuracy, Sample, SampleReason, SamplesUsage, SamplingPolicy
from enxerto.inference.errors import SampleNotFoundError, StorageUnavailableError
from enxerto.kernel.names import DeploymentName, SampleName, VersionName
from enxerto.kernel.paging import Page, PageRequest
from enxerto.runtime.sql import reader, transaction

_SOME = 200
_WRITE_ATTEMPTS = 5
# What a statement may hold: SQLite takes at most 32,766 parameters.
_ROWS_A_STATEMENT = 500


class SqlQualityStore:
    """A `QualityStore` on SQL; the schema must be there."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = reader(engine)

    async def put_feedback(self, records: Sequence[FeedbackRecord]) -> None:
        """Keep all of them."""
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                async with transaction(self._engine, StorageUnavailableError) as connection:
                    for start in range(0, len(records), _ROWS_A_STATEMENT):
                        await _replace_feedback(connection, records[start : start + _ROWS_A_STATEMENT])
                return
            except IntegrityError as error:
                # Somebody else spoke of the same image at the same moment.
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise StorageUnavailableError("the same feedback is being written by others") from error

    async def accuracies(self, name: DeploymentName, since: datetime) -> Sequence[LiveAccuracy]:
        """By version."""
        total = func.count().label("total")
        query = (
            select(
                feedback.c.version,
                total,
                func.sum(feedback.c.correct.cast(Integer)).label("correct"),
                func.sum(case((feedback.c.known, 0), else_=1)).label("unknown"),
            )
            .where(_of(feedback, name), feedback.c.answer_time >= since)
            .group_by(feedback.c.version)
            .order_by(total.desc(), feedback.c.version)
        )
        async with transaction(self._reader, StorageUnavailableError) as connection:
            rows = (await connection.execute(query)).all()
        return [
            LiveAccuracy(VersionName.parse(version), int(count), int(correct), int(unknown))
            for version, count, correct, unknown in rows
        ]

    async def forget_feedback(self, before: datetime) -> None:
        """Of every deployment."""
        async with transaction(self._engine, StorageUnavailableError) as connection:
            await connection.execute(delete(feedback).where(feedback.c.answer_time < before))

    async def policy(self, name: DeploymentName) -> SamplingPolicy | None:
        """One policy."""
        async with transaction(self._reader, StorageUnavailableError) as connection:
            query = select(sampling_policies).where(_of(sampling_policies, name))
            row = (await connection.execute(query)).mappings().one_or_none()
        return _policy(row) if row else None

    async def policies(self) -> Sequence[SamplingPolicy]:
        """Every policy."""
        async with transaction(self._reader, StorageUnavailableError) as connection:
            return [_policy(row) for row in (await connection.execute(select(sampling_policies))).mappings()]

    async def put_policy(self, policy: SamplingPolicy) -> None:
        """Instead of the one before."""
        name = policy.deployment
        row = {
            "project": name.project,
            "deployment": name.deployment,
            "max_samples": policy.max_samples,
            "max_bytes": policy.max_bytes,
            "uncertain_below": policy.uncertain_below,
            "drifted_beyond": policy.drifted_beyond,
            "update_time": policy.update_time,
        }
        for attempt in range(_WRITE_ATTEMPTS):
            try:
                async with transaction(self._engine, StorageUnavailableError) as connection:
                    await connection.execute(delete(sampling_policies).where(_of(sampling_policies, name)))
                    await connection.execute(insert(sampling_policies).values(row))
                return
            except IntegrityError as error:
                if attempt == _WRITE_ATTEMPTS - 1:
                    raise StorageUnavailableError("the same policy is being written by others") from error

    async def add_sample(self, sample: Sample) -> None:
        """A new one."""
        row = {
            "project": sample.name.project,
            "deployment": sample.name.deployment,
            "sample": sample.name.sample,
            "reason": sample.reason.value,
            "version": str(sample.version),
            "predicted_label": sample.predicted_label,
            "confidence": sample.confidence,
            "distance": sample.distance,
            "identity": sample.identity,
            "item": sample.index,
            "size_bytes": sample.size_bytes,
            "sha256": sample.sha256,
            "create_time": sample.create_time,
        }
        async with transaction(self._engine, StorageUnavailableError) as connection:
            await connection.execute(insert(samples).values(row))

    async def get_sample(self, name: SampleName) -> Sample:
        """With its true label."""
        async with transaction(self._reader, StorageUnavailableError) as connection:
            query = _labelled().where(_of(samples, name.parent), samples.c.sample == name.sample)
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise SampleNotFoundError(name)
        return _sample(row)

    async def list_samples(self, name: DeploymentName, page: PageRequest) -> Page[Sample]:
        """With their true labels."""
        query = (
            _labelled()
            .where(_of(samples, name), samples.c.sample > page.after)
            .order_by(samples.c.sample)
            .limit(page.size + 1)
        )
        async with transaction(self._reader, StorageUnavailableError) as connection:
            rows = (await connection.execute(query)).mappings().all()
        items = [_sample(row) for row in rows[: page.size]]
        return Page(items, items[-1].name.sample if len(rows) > page.size else "")

    async def samples_before(self, name: DeploymentName, before: datetime) -> Sequence[SampleName]:
        """Some of them."""
        query = select(samples.c.sample).where(_of(samples, name), samples.c.create_time < before).limit(_SOME)
        async with transaction(self._reader, StorageUnavailableError) as connection:
            return [
                SampleName(name.project, name.deployment, one) for one in (await connection.execute(query)).scalars()
            ]

    async def remove_sample(self, name: SampleName) -> None:
        """Forget one."""
        async with transaction(self._engine, StorageUnavailableError) as connection:
            await connection.execute(delete(samples).where(_of(samples, name.parent), samples.c.sample == name.sample))

    async def samples_usage(self, name: DeploymentName) -> SamplesUsage:
        """Count and bytes."""
        query = select(func.count(), func.coalesce(func.sum(samples.c.size_bytes), 0)).where(_of(samples, name))
        async with transaction(self._reader, StorageUnavailableError) as connection:
            count, size_bytes = (await connection.execute(query)).one()
        return SamplesUsage(int(count), int(size_bytes))

    async def deployments(self) -> set[DeploymentName]:
        """Every one in any table."""
        tables = (feedback, sampling_policies, samples)
        query = union(*(select(table.c.project, table.c.deployment).distinct() for table in tables))
        async with transaction(self._reader, StorageUnavailableError) as connection:
            return {DeploymentName(project, deployment) for project, deployment in (await connection.execute(query))}

    async def forget(self, name: DeploymentName, before: datetime) -> None:
        """Feedback and policy."""
        async with transaction(self._engine, StorageUnavailableError) as connection:
            await connection.execute(delete(feedback).where(_of(feedback, name), feedback.c.answer_time < before))
            old = sampling_policies.c.update_time < before
            await connection.execute(delete(sampling_policies).where(_of(sampling_policies, name), old))


def _of(table: Table, name: DeploymentName) -> Any:
    return and_(table.c.project == name.project, table.c.deployment == name.deployment)


async def _replace_feedback(connection: AsyncConnection, records: Sequence[FeedbackRecord]) -> None:
    rows = [
        {
            "project": record.deployment.project,
            "deployment": record.deployment.deployment,
            "identity": record.identity,
            "item": record.index,
            "version": str(record.version),
            "predicted_label": record.predicted_label,
            "label": record.label,
            "known": record.known,
            "correct": record.correct,
            "answer_time": record.time,
        }
        for record in records
    ]
    for name in {record.deployment for record in records}:
        keys = [(record.identity, record.index) for record in records if record.deployment == name]
        same = tuple_(feedback.c.identity, feedback.c.item).in_(keys)
        await connection.execute(delete(feedback).where(_of(feedback, name), same))
    await connection.execute(insert(feedback), rows)


def _labelled() -> Any:
    same = and_(
        feedback.c.project == samples.c.project,
        feedback.c.deployment == samples.c.deployment,
        feedback.c.identity == samples.c.identity,
        feedback.c.item == samples.c.item,
    )
    true_label = func.coalesce(feedback.c.label, "").label("true_label")
    return select(samples, true_label).select_from(samples.outerjoin(feedback, same))


def _policy(row: RowMapping) -> SamplingPolicy:
    return SamplingPolicy(
        DeploymentName(row["project"], row["deployment"]),
        row["max_samples"],
        row["max_bytes"],
        row["uncertain_below"],
        row["drifted_beyond"],
        row["update_time"],
    )


def _sample(row: RowMapping) -> Sample:
    return Sample(
        name=SampleName(row["project"], row["deployment"], row["sample"]),
        reason=SampleReason(row["reason"]),
        version=VersionName.parse(row["version"]),
        predicted_label=row["predicted_label"],
        confidence=row["confidence"],
        distance=row["distance"],
        identity=row["identity"],
        index=row["item"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        create_time=row["create_time"],
        true_label=row["true_label"],
    )
