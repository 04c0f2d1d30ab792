"""What the inference service keeps of quality, in memory. Each keeps its port's contract."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from enxerto.inference.domain import FeedbackRecord, LiveAccuracy, Sample, SamplesUsage, SamplingPolicy
from enxerto.inference.errors import SampleNotFoundError
from enxerto.kernel.names import DeploymentName, SampleName
from enxerto.kernel.paging import Page, PageRequest


class InMemoryQualityStore:
    """A `QualityStore` in dictionaries."""

    def __init__(self) -> None:
        self._feedback: dict[tuple[DeploymentName, str, int], FeedbackRecord] = {}
        self._policies: dict[DeploymentName, SamplingPolicy] = {}
        self._samples: dict[SampleName, Sample] = {}

    async def put_feedback(self, records: Sequence[FeedbackRecord]) -> None:
        self._feedback |= {(one.deployment, one.identity, one.index): one for one in records}

    async def accuracies(self, name: DeploymentName, since: datetime) -> Sequence[LiveAccuracy]:
        by_version = defaultdict(list)
        for one in self._feedback.values():
            if one.deployment == name and one.time >= since:
                by_version[one.version].append(one)
        found = [
            LiveAccuracy(version, len(said), sum(one.correct for one in said), sum(not one.known for one in said))
            for version, said in by_version.items()
        ]
        return sorted(found, key=lambda one: (-one.feedback, str(one.version)))

    async def forget_feedback(self, before: datetime) -> None:
        self._feedback = {key: one for key, one in self._feedback.items() if one.time >= before}

    async def policy(self, name: DeploymentName) -> SamplingPolicy | None:
        return self._policies.get(name)

    async def policies(self) -> Sequence[SamplingPolicy]:
        return list(self._policies.values())

    async def put_policy(self, policy: SamplingPolicy) -> None:
        self._policies[policy.deployment] = policy

    async def add_sample(self, sample: Sample) -> None:
        self._samples[sample.name] = sample

    async def get_sample(self, name: SampleName) -> Sample:
        if name not in self._samples:
            raise SampleNotFoundError(name)
        return self._labelled(self._samples[name])

    async def list_samples(self, name: DeploymentName, page: PageRequest) -> Page[Sample]:
        names = sorted(one for one in self._samples if one.parent == name and one.sample > page.after)
        items = [self._labelled(self._samples[one]) for one in names[: page.size]]
        return Page(items, items[-1].name.sample if len(names) > page.size else "")

    async def samples_before(self, name: DeploymentName, before: datetime) -> Sequence[SampleName]:
        return [key for key, one in self._samples.items() if key.parent == name and one.create_time < before]

    async def remove_sample(self, name: SampleName) -> None:
        self._samples.pop(name, None)

    async def samples_usage(self, name: DeploymentName) -> SamplesUsage:
        sizes = [one.size_bytes for key, one in self._samples.items() if key.parent == name]
        return SamplesUsage(len(sizes), sum(sizes))

    async def deployments(self) -> set[DeploymentName]:
        return {key[0] for key in self._feedback} | set(self._policies) | {one.parent for one in self._samples}

    async def forget(self, name: DeploymentName, before: datetime) -> None:
        self._feedback = {
            key: one for key, one in self._feedback.items() if one.deployment != name or one.time >= before
        }
        policy = self._policies.get(name)
        if policy is not None and policy.update_time is not None and policy.update_time < before:
            del self._policies[name]

    def _labelled(self, sample: Sample) -> Sample:
        said = self._feedback.get((sample.name.parent, sample.identity, sample.index))
        return replace(sample, true_label=said.label) if said else sample


class InMemorySampleFiles:
    """`SampleFiles` in a dictionary."""

    def __init__(self) -> None:
        self.contents: dict[SampleName, bytes] = {}

    async def put(self, name: SampleName, content: bytes) -> None:
        self.contents[name] = content

    async def get(self, name: SampleName) -> bytes | None:
        return self.contents.get(name)

    async def delete(self, name: SampleName) -> None:
        self.contents.pop(name, None)

    async def names(self) -> Sequence[SampleName]:
        return list(self.contents)
