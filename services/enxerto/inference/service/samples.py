"""Keeps uncertain and drifted images for labelling, when a deployment asks for it: beside the requests, bounded."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from weakref import WeakValueDictionary

from enxerto.inference.domain import (
    Payload,
    PayloadKind,
    Prediction,
    Sample,
    SampleReason,
    SamplingPolicy,
)
from enxerto.inference.errors import SampleNotFoundError
from enxerto.inference.ports import DeploymentStore, Meter, QualityStore, SampleFiles
from enxerto.inference.service.observation import Observed
from enxerto.kernel.clock import Clock
from enxerto.kernel.errors import EnxertoError
from enxerto.kernel.names import DeploymentName, SampleName
from enxerto.kernel.paging import Page, PageRequest

logger = logging.getLogger(__name__)

_WAITING = 64
_WAITING_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Candidate:
    sample: Sample
    content: bytes


@dataclass(frozen=True, slots=True)
class Retention:
    """How often what is kept is looked through, and how long feedback stays."""

    tidy_s: float = 30.0
    feedback_days: int = 365


class Samples:
    """Policies, and the images kept by them."""

    def __init__(
        self,
        *,
        deployments: DeploymentStore,
        store: QualityStore,
        files: SampleFiles,
        clock: Clock,
        meter: Meter,
        retention: Retention,
    ) -> None:
        self._deployments = deployments
        self._store = store
        self._files = files
        self._clock = clock
        self._meter = meter
        self._retention = retention
        self._policies: Mapping[DeploymentName, SamplingPolicy] = {}
        # What is stored and what is known here change together.
        self._changing = asyncio.Lock()
        self._fitting: WeakValueDictionary[DeploymentName, asyncio.Lock] = WeakValueDictionary()
        self._torn: set[SampleName] = set()
        """Those whose image or row could not be written; the other one may be there."""
        self._waiting: asyncio.Queue[_Candidate] = asyncio.Queue(_WAITING)
        self._waiting_bytes = 0

    # --- what users ask for ---

    async def policy(self, name: DeploymentName) -> SamplingPolicy:
        """The policy of a deployment, or raise `DeploymentNotFoundError`."""
        deployment = await self._deployments.get(name)
        found = await self._store.policy(name)
        stale = found is None or found.update_time is None or found.update_time < deployment.create_time
        return SamplingPolicy(name) if stale or found is None else found

    async def set_policy(self, policy: SamplingPolicy) -> SamplingPolicy:
        """Change which images are kept; those beyond the new bounds are removed. Or raise `DeploymentNotFoundError`."""
        await self._deployments.get(policy.deployment)
        async with self._changing:
            policy = replace(policy, update_time=self._clock.now())
            await self._store.put_policy(policy)
            self._policies = {**self._policies, policy.deployment: policy}
        await self._fit(policy.deployment)
        return policy

    async def list(self, name: DeploymentName, page: PageRequest) -> Page[Sample]:
        """What was kept, the oldest first; or raise `DeploymentNotFoundError`."""
        await self._deployments.get(name)
        return await self._store.list_samples(name, page)

    async def download(self, name: SampleName) -> bytes:
        """The image as it was sent, or raise `SampleNotFoundError`."""
        await self._store.get_sample(name)
        content = await self._files.get(name)
        if content is None:
            raise SampleNotFoundError(name)
        return content

    async def delete(self, name: SampleName) -> None:
        """Remove one, or raise `SampleNotFoundError`."""
        await self._store.get_sample(name)
        await self._remove(name)

    # --- what requests offer ---

    def offer(
        self, name: DeploymentName, payload: Payload, prediction: Prediction, observed: Sequence[Observed]
    ) -> None:
        """Keep the images that the policy wants; when the disk is behind, they are let go."""
        policy = self._policies.get(name)
        if policy is None or not policy.max_samples or payload.kind is not PayloadKind.ENCODED:
            return
        for one in observed:
            reason = _reason(policy, one)
            if reason is None:
                continue
            content = bytes(payload.parts[one.index])
            sample = Sample(
                name=_new_name(name, prediction, one.index),
                reason=reason,
                version=prediction.version.name,
                predicted_label=one.label,
                confidence=one.confidence,
                distance=one.distance,
                identity=prediction.identity,
                index=one.index,
                size_bytes=len(content),
                sha256="",
                create_time=prediction.time,
            )
            if self._waiting.full() or self._waiting_bytes + len(content) > _WAITING_BYTES:
                self._meter.sample("dropped")
                continue
            self._waiting.put_nowait(_Candidate(sample, content))
            self._waiting_bytes += len(content)

    # --- what happens beside ---

    async def run(self) -> None:
        """Write what was offered and tidy up, until cancelled."""
        swept = False
        while True:
            try:
                if not swept:
                    await self._sweep()
                    swept = True
                await self.tidy()
                await self._write_for(self._retention.tidy_s)
                continue
            except EnxertoError as error:
                logger.warning("samples wait", extra={"error": error.message})
            except Exception:
                logger.exception("keeping samples failed")
            await asyncio.sleep(min(1.0, self._retention.tidy_s))

    async def _write_for(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            try:
                candidate = await asyncio.wait_for(self._waiting.get(), left)
            except TimeoutError:
                return
            await self._write(candidate)

    async def flush(self) -> None:
        """Write what waits now."""
        while not self._waiting.empty():
            await self._write(self._waiting.get_nowait())

    async def tidy(self) -> None:
        """Read the policies; forget what belongs to deployments that are gone, and feedback that is old."""
        # Before anything is read: what comes later may be of deployments that were not there yet.
        now = self._clock.now()
        async with self._changing:
            policies = await self._store.policies()
            created = {one.name: one.create_time for one in await self._deployments.all()}
            self._policies = {
                one.deployment: one
                for one in policies
                if one.deployment in created and one.update_time and one.update_time >= created[one.deployment]
            }
        for name in await self._store.deployments():
            # A deployment that was made again under the same name begins anew.
            before = created.get(name, now)
            while samples := await self._store.samples_before(name, before):
                for sample in samples:
                    await self._remove(sample)
            await self._store.forget(name, before)
        await self._store.forget_feedback(now - timedelta(days=self._retention.feedback_days))
        for torn in list(self._torn):
            await self._remove(torn)
            self._torn.discard(torn)

    async def _write(self, candidate: _Candidate) -> None:
        self._waiting_bytes -= len(candidate.content)
        sample, policy = candidate.sample, self._policies.get(candidate.sample.name.parent)
        if policy is None or not policy.max_samples or sample.size_bytes > policy.max_bytes:
            self._meter.sample("dropped")
            return
        digest = await asyncio.to_thread(hashlib.sha256, candidate.content)
        try:
            # The row refers to bytes that are there.
            await self._files.put(sample.name, candidate.content)
            await self._store.add_sample(replace(sample, sha256=digest.hexdigest()))
        except Exception:
            self._torn.add(sample.name)
            self._meter.sample("dropped")
            raise
        self._meter.sample(sample.reason.value.lower())
        await self._fit(policy.deployment)

    async def _fit(self, name: DeploymentName) -> None:
        """Remove the oldest samples until the others fit."""
        # One at a time: each counts only what it removes itself.
        async with self._fitting.setdefault(name, asyncio.Lock()):
            if (policy := self._policies.get(name)) is not None:
                await self._shrink(policy)

    async def _shrink(self, policy: SamplingPolicy) -> None:
        name = policy.deployment
        usage = await self._store.samples_usage(name)
        count, size_bytes = usage.count, usage.size_bytes
        while count > policy.max_samples or size_bytes > policy.max_bytes:
            page = await self._store.list_samples(name, PageRequest(100))
            if not page.items:
                return
            for sample in page.items:
                if count <= policy.max_samples and size_bytes <= policy.max_bytes:
                    return
                await self._remove(sample.name)
                count, size_bytes = count - 1, size_bytes - sample.size_bytes

    async def _remove(self, name: SampleName) -> None:
        await self._store.remove_sample(name)
        await self._files.delete(name)

    async def _sweep(self) -> None:
        """Remove bytes without a row, of a process that was killed between the two; and rows whose bytes are gone."""
        stored = set(await self._files.names())
        known: set[SampleName] = set()
        for deployment in await self._store.deployments():
            page: Page[Sample] | None = None
            while page is None or page.next_after:
                after = page.next_after if page else ""
                page = await self._store.list_samples(deployment, PageRequest(1000, after))
                known.update(sample.name for sample in page.items)
        for name in known - stored:
            await self._store.remove_sample(name)
        for name in stored - known:
            await self._files.delete(name)


def _reason(policy: SamplingPolicy, observed: Observed) -> SampleReason | None:
    if policy.drifted_beyond and observed.distance is not None and observed.distance > policy.drifted_beyond:
        return SampleReason.DRIFTED
    return SampleReason.UNCERTAIN if observed.confidence < policy.uncertain_below else None


def _new_name(name: DeploymentName, prediction: Prediction, index: int) -> SampleName:
    """Ids come in the order of time, and of the request."""
    milliseconds = round(prediction.time.timestamp() * 1000)
    return SampleName(name.project, name.deployment, f"s{milliseconds:012x}{index:04x}{secrets.token_hex(6)}")
