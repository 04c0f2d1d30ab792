"""Questions that a job answers, and weights that a job compares."""

import asyncio
import hashlib
import json
import struct
from dataclasses import replace
from datetime import timedelta

import pytest

from enxerto.kernel.errors import FailedPreconditionError, InvalidArgumentError, Violation
from enxerto.kernel.names import ProjectName
from enxerto.training.adapters.codec import spec_to_json
from enxerto.training.adapters.status import decode_status, encode_status
from enxerto.training.domain import ClusterSize, JobFailed, JobStarted, JobTrained, Progress, TrainingEstimate
from enxerto.training.errors import (
    InquiriesFullError,
    JobBrokenError,
    SourceRefusedError,
    TaskMismatchError,
    WeightsRefusedError,
)
from enxerto.training.ports import JobState
from enxerto.training.service import Inquiries, Questions, Signals, WeightsImports, WeightsSupply
from enxerto.training.service.weights import begins_as_published, check_safetensors, is_published
from enxerto.vision.catalogue import DownloadableWeights, get_facts
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import Task
from fakes.training_stores import START, SteppingClock
from fakes.training_values import a_run
from training_world import a_world

ESTIMATE = {
    "duration_s": 60.0,
    "epoch_duration_s": 2.0,
    "images_per_second": 100.0,
    "memory_bytes": 2**30,
    "gpu_memory_bytes": 0,
    "measured_steps": 5,
    "device": "cpu, 2 threads",
}
PROJECT = ProjectName("default")


@pytest.fixture
async def world():
    return await a_world()


def asked(world):
    return Inquiries(world.cluster, world.cluster, decode_status, Signals(), interval_s=0.001, poll_s=0.0)


def questions(world, inquiries=None, clock=None):
    weights = WeightsSupply(world.imported, world.imported)
    parts = {"jobs": world.cluster, "clock": clock or SteppingClock()}
    return Questions(world.datasets, weights, inquiries or asked(world), spec_to_json, **parts)


class Job:
    """Plays the job of the only question as soon as it is asked."""

    def __init__(self, world, *bodies, answer=None, ends=JobState.SUCCEEDED):
        self.world, self.bodies, self.answer, self.ends = world, bodies, answer, ends
        self.known = set(world.cluster.inquiries)

    async def __aenter__(self):
        self.task = asyncio.create_task(self._play())
        return self

    async def __aexit__(self, *error):
        self.task.cancel()

    async def _play(self):
        cluster = self.world.cluster
        while not (new := set(cluster.inquiries) - self.known):
            await asyncio.sleep(0.001)
        job_id = new.pop()
        uid, _, attempt = job_id.rpartition("-")
        job = type("Attempt", (), {"uid": uid, "attempt": int(attempt)})
        cluster.write(job, *self.bodies)
        if self.answer is not None:
            cluster.answers[uid, int(attempt)] = self.answer
        cluster.jobs[job_id] = self.ends


async def everything(stream):
    return [one async for one in stream]


async def test_an_estimate_shows_progress_and_is_measured_once(world):
    async with Job(world, JobStarted(), Progress("training", 0, 1, 8, 64), JobTrained(), answer=ESTIMATE):
        found = await everything(questions(world).estimate(PROJECT, a_run().spec))
    assert found[-1] == TrainingEstimate(**ESTIMATE)
    assert found[0] == Progress("training", 0, 1, 8, 64)
    again = await everything(questions(world).estimate(PROJECT, a_run().spec))
    assert again == [TrainingEstimate(**ESTIMATE)]
    assert len(world.cluster.submissions) == 1
    document = next(iter(world.cluster.inquiries.values())).document
    assert document["spec"]["finetune"]["base_model"] == "efficientnet_lite0"


@pytest.mark.parametrize(("gpus", "use_gpu"), [(0.0, False), (1.0, False), (2.0, True)])
async def test_an_estimate_is_measured_on_what_the_run_would_train_on(world, gpus, use_gpu):
    world.cluster.cluster = ClusterSize(64.0, gpus)
    async with Job(world, JobStarted(), answer=ESTIMATE):
        await everything(questions(world).estimate(PROJECT, a_run().spec))
    (asked_for,) = world.cluster.inquiries.values()
    assert asked_for.document["use_gpu"] is use_gpu


async def test_the_same_question_at_once_is_one_job(world):
    asking, spec = questions(world), a_run().spec
    async with Job(world, JobStarted(), answer=ESTIMATE):
        both = await asyncio.gather(*(everything(asking.estimate(PROJECT, spec)) for _ in range(2)))
    assert [found[-1] for found in both] == [TrainingEstimate(**ESTIMATE)] * 2
    assert len(set(world.cluster.submissions)) == 1


async def test_an_answer_holds_for_the_cluster_and_for_the_day(world):
    clock, spec = SteppingClock(), a_run().spec
    asking = questions(world, clock=clock)

    async def measured(seconds):
        async with Job(world, answer={**ESTIMATE, "duration_s": seconds}):
            (found,) = await everything(asking.estimate(PROJECT, spec))
        return found.duration_s

    assert await measured(60.0) == 60.0
    world.cluster.cluster = ClusterSize(64.0, 1.0)
    assert await measured(5.0) == 5.0
    # What others hold of it changes from one moment to the next.
    world.cluster.cluster = ClusterSize(64.0, 1.0, other_cpus=3.0)
    assert await measured(4.0) == 5.0
    clock.time += timedelta(days=1)
    assert await measured(3.0) == 3.0
    assert len(world.cluster.submissions) == 3


async def test_what_the_job_says_went_wrong_is_the_callers_error_and_the_next_call_tries_again(world):
    refusal = encode_status(SourceRefusedError([Violation("spec.batch_size", "does not fit into memory")]))
    async with Job(world, JobFailed(refusal)):
        with pytest.raises(InvalidArgumentError, match="does not fit") as caught:
            await everything(questions(world).estimate(PROJECT, a_run().spec))
    assert caught.value.reason == "SOURCE_REFUSED"
    async with Job(world, answer=ESTIMATE):
        assert len(await everything(questions(world).estimate(PROJECT, a_run().spec))) == 1
    assert [one.rpartition("-")[2] for one in world.cluster.submissions] == ["1", "2"]


async def test_a_job_that_ends_without_a_word_is_unavailable(world):
    async with Job(world, JobStarted(), ends=JobState.FAILED):
        with pytest.raises(JobBrokenError, match="the cluster's word"):
            await everything(questions(world).estimate(PROJECT, a_run().spec))


async def test_abandoned_questions_count_until_their_jobs_are_over(world):
    inquiries = Inquiries(world.cluster, world.cluster, decode_status, Signals(), interval_s=0.001, most=2)
    asking = questions(world, inquiries)
    base = a_run().spec

    async def ask(seed):
        await everything(asking.estimate(PROJECT, replace(base, finetune=replace(base.finetune, seed=seed))))

    for seed in (1, 2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(seed), 0.02)
    with pytest.raises(InquiriesFullError):
        await ask(3)
    assert len(world.cluster.submissions) == 2
    world.cluster.jobs[world.cluster.submissions[0]] = JobState.SUCCEEDED
    async with Job(world, answer=ESTIMATE):
        await ask(3)
    assert len(world.cluster.submissions) == 3


async def test_a_ranking_is_for_classification_and_takes_the_models_that_are_there(world):
    answer = {
        "scores": [
            {
                "base_model": "efficientnet_lite0",
                "probe_accuracy": 0.9,
                "knn_accuracy": 0.8,
                "time_per_image_s": 0.01,
                "parameter_count": 5,
            }
        ],
        "skipped": {"resnet18": "no weights"},
    }
    async with Job(world, answer=answer):
        found = await everything(questions(world).recommend(PROJECT, a_run().spec.snapshot, (), 100))
    assert found[-1].scores[0].base_model == "efficientnet_lite0"
    assert "efficientnet_lite0" in next(iter(world.cluster.inquiries.values())).document["base_models"]


async def test_a_base_model_of_another_task_is_refused(world):
    spec = a_run().spec
    style = type(spec)(
        snapshot=spec.snapshot,
        base_model=spec.base_model,
        model=spec.model,
        finetune=FinetuneSpec.with_defaults("x", task=Task.STYLE, strategy=spec.finetune.strategy),
        num_workers=1,
    )
    with pytest.raises(TaskMismatchError, match="STYLE"):
        await everything(questions(world).estimate(PROJECT, style))
    with pytest.raises(FailedPreconditionError):
        await world.cases.create(PROJECT, "", style, {}, request=None)


def safetensors(**shapes):
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def imports(world):
    return WeightsImports(world.imported, world.imported, asked(world), SteppingClock(), max_bytes=10**6)


async def receive(world, data, *, facts=None, sha256=None, size=None):
    async def chunks():
        for start in range(0, len(data), 100):
            yield data[start : start + 100]

    digest = sha256 or hashlib.sha256(data).hexdigest()
    return await imports(world).receive(facts or get_facts("resnet18"), digest, size or len(data), chunks())


async def test_safetensors_are_compared_by_a_job_and_given_to_later_runs(world):
    data = safetensors(a=(2, 3), b=(4,))
    async with Job(world, JobTrained(), answer={"tensors": 2}):
        weights = await receive(world, data)
    assert world.imported.published == {weights.sha256: len(data)}
    supply = WeightsSupply(world.imported, world.imported)
    assert await supply.supply(FinetuneSpec.with_defaults("resnet18")) == {"resnet18": weights.sha256}
    assert await supply.supply(FinetuneSpec.with_defaults("unet", encoder="resnet18")) == {"resnet18": weights.sha256}
    assert await supply.supply(FinetuneSpec.with_defaults("resnet18", weights=Weights.NONE)) == {}
    assert weights.import_time > START


@pytest.mark.parametrize("imported", ["vgg16", "gatys_vgg16"])
async def test_weights_are_those_of_every_base_model_that_starts_from_them(world, imported):
    async with Job(world, JobTrained(), answer={"tensors": 26}):
        weights = await receive(world, safetensors(a=(2,)), facts=get_facts(imported))
    supply = WeightsSupply(world.imported, world.imported)
    names = ("vgg16", "gatys_vgg16", "fast_style_vgg16")
    assert await supply.digests() == dict.fromkeys(names, weights.sha256)
    for name in names:
        assert await supply.supply(FinetuneSpec.with_defaults(name)) == {name: weights.sha256}
    assert await supply.supply(FinetuneSpec.with_defaults("gatys_vgg19")) == {}


async def test_weights_that_do_not_fit_are_refused_and_not_kept(world):
    refusal = encode_status(WeightsRefusedError([Violation("chunk", "conv1.weight is missing")]))
    async with Job(world, JobFailed(refusal)):
        with pytest.raises(InvalidArgumentError, match=r"conv1\.weight"):
            await receive(world, safetensors(a=(1,)))
    assert (world.imported.known, world.imported.published) == ({}, {})


def with_header(header):
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04" + bytes(60),
        b"\x80\x04cos\nsystem\n",
        safetensors(a=(2,))[:-1],
        safetensors(a=(2,)) + b"x",
        with_header(b'{"a": ' + b"[" * 100_000),
        with_header(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}'),
        with_header(b'{"a": {"dtype": "F32", "data_offsets": [0, 4], "shape": [9' + b",9" * 1_000_000 + b"]}}"),
    ],
    ids=range(8),
)
def test_what_is_not_safetensors_is_refused_without_being_opened(data):
    with pytest.raises(WeightsRefusedError, match="safetensors"):
        check_safetensors(data, len(data))


async def test_bytes_that_are_not_what_was_announced_are_refused(world):
    data = safetensors(a=(2,))
    with pytest.raises(WeightsRefusedError, match="announced"):
        await receive(world, data, size=len(data) + 1)
    with pytest.raises(WeightsRefusedError, match="sha256"):
        await receive(world, data, sha256="0" * 64)
    with pytest.raises(WeightsRefusedError, match="may have"):
        await receive(world, data, size=10**7)


def test_the_published_digest_is_known_wholly_or_by_its_beginning():
    resnet, lite = get_facts("resnet18"), get_facts("efficientnet_lite0")
    assert begins_as_published(resnet, "f37072fd" + "0" * 56)
    assert not begins_as_published(resnet, "f37072fe" + "0" * 56)
    assert not is_published(resnet, "f37072fd" + "0" * 56)
    assert is_published(lite, lite.packaged.sha256)
    assert not is_published(lite, lite.packaged.sha256[:-1] + "x")
    digest = "ab" * 32
    whole = replace(resnet, download=DownloadableWeights(f"https://example.org/resnet18-{digest}.pth"))
    assert is_published(whole, digest)
    assert not is_published(whole, digest[:-1] + "0")


async def test_a_file_that_begins_as_the_published_one_is_compared_all_the_same(world):
    data = b"\x80\x02}q\x00." * 10
    digest = hashlib.sha256(data).hexdigest()
    facts = replace(get_facts("resnet18"), download=DownloadableWeights(f"https://example.org/a-{digest[:8]}.pth"))
    refusal = encode_status(WeightsRefusedError([Violation("chunk", "conv1.weight is missing")]))
    async with Job(world, JobFailed(refusal)):
        with pytest.raises(InvalidArgumentError, match=r"conv1\.weight"):
            await receive(world, data, facts=facts)
    assert not world.imported.published
    with pytest.raises(WeightsRefusedError, match="safetensors"):
        await receive(world, data)
