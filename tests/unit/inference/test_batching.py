"""Many callers, few calls, each caller its own answer."""

import asyncio
import time

import numpy as np
import pytest

from enxerto.inference.domain import AnswerForm, Endpoint, Payload, PayloadKind
from enxerto.inference.errors import QueueFullError, ReplicasUnavailableError
from enxerto.inference.service import Batcher, BatchLimits, Share
from enxerto.kernel.names import DeploymentName, VersionName
from fakes.inference_world import BAD_IMAGE, LABELS, CountingMeter, InMemoryReplicas

NAME = DeploymentName("default", "pets")
VERSION = VersionName("default", "pets", 1)


class Bench:
    """A batcher over one replica in memory."""

    def __init__(self, **limits: object) -> None:
        self.replicas = InMemoryReplicas()
        self.meter = CountingMeter()
        endpoint = Endpoint("a:1", "a")

        async def send(payloads: object, timeout_s: float) -> object:
            return await self.replicas.predict(endpoint, VERSION, payloads, timeout_s)  # type: ignore[arg-type]

        self.batcher = Batcher(NAME, send, BatchLimits(**limits), self.meter)  # type: ignore[arg-type]

    async def ask(self, *images: bytes, timeout_s: float = 5.0) -> Share:
        return await self.batcher.submit(Payload(PayloadKind.ENCODED, images, len(images)), timeout_s)

    @property
    def sizes(self) -> list[int]:
        return [sum(items) for _, _, items in self.replicas.calls]


def rows(share: Share) -> list[float]:
    return np.frombuffer(share.tensors[0].content, "<f4").reshape(-1, len(LABELS))[:, 1].tolist()


async def test_alone_a_request_goes_at_once() -> None:
    bench = Bench(max_delay_s=10)
    share = await asyncio.wait_for(bench.ask(b"1"), 1)
    assert rows(share) == [1]
    assert bench.sizes == [1]


async def test_what_arrives_during_a_call_travels_together_and_each_gets_its_own() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    tasks = [asyncio.ensure_future(bench.ask(*[b"x" * n] * (n % 3 + 1))) for n in range(1, 9)]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    shares = await asyncio.gather(*tasks)
    assert bench.sizes == [2, sum(n % 3 + 1 for n in range(2, 9))]
    assert [rows(share) for share in shares] == [[n] * (n % 3 + 1) for n in range(1, 9)]
    assert bench.meter.waiting == 0


async def test_a_batch_stays_within_items_and_bytes() -> None:
    bench = Bench(concurrency=1, max_items=4, max_bytes=100, max_delay_s=0)
    bench.replicas.gate.clear()
    tasks = [asyncio.ensure_future(bench.ask(image)) for image in [b"a"] * 6 + [b"b" * 60] * 2]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.sizes == [1, 4, 2, 1]


async def test_a_request_larger_than_a_batch_travels_alone() -> None:
    bench = Bench(max_items=2)
    assert rows(await bench.ask(*[b"x"] * 5)) == [1] * 5


async def test_a_bad_image_is_its_callers_alone() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    tasks = [
        asyncio.ensure_future(bench.ask(*images)) for images in [(b"1",), (b"22", BAD_IMAGE, b"4444"), (b"55555",)]
    ]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    _, mixed, good = await asyncio.gather(*tasks)
    assert [bad.index for bad in mixed.refusals] == [1]
    assert rows(mixed) == [2, 4]
    assert not good.refusals
    assert rows(good) == [5]


async def test_kinds_never_mix() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    tensor = Payload(PayloadKind.TENSOR, (bytes(48),), 1, (3, 2, 2))
    tasks = [
        asyncio.ensure_future(bench.batcher.submit(payload, 5))
        for payload in [tensor, tensor, Payload(PayloadKind.ENCODED, (b"x",), 1), tensor]
    ]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.sizes == [1, 2, 1]


async def test_a_full_queue_refuses_with_a_delay_to_retry() -> None:
    bench = Bench(concurrency=1, max_queued_items=3)
    bench.replicas.gate.clear()
    tasks = [asyncio.ensure_future(bench.ask(b"x")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError) as refusal:
        await bench.ask(b"x")
    assert refusal.value.retry_after_s > 0
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.meter.counts["queue_full"] == 1


async def test_what_expired_in_the_queue_is_not_sent() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    first = asyncio.ensure_future(bench.ask(b"1"))
    late = asyncio.ensure_future(bench.ask(b"22", timeout_s=0.01))
    last = asyncio.ensure_future(bench.ask(b"333"))
    await asyncio.sleep(0.05)
    bench.replicas.gate.set()
    assert rows(await last) == [3]
    await first
    with pytest.raises(ReplicasUnavailableError):
        await late
    assert bench.sizes == [1, 1]
    assert bench.meter.counts["expired"] == 1


async def test_who_has_no_time_left_is_answered_while_every_call_is_busy() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    carried = asyncio.ensure_future(bench.ask(b"1", timeout_s=0.05))
    await asyncio.sleep(0)
    with pytest.raises(ReplicasUnavailableError):
        await asyncio.wait_for(bench.ask(b"22", timeout_s=0.01), 1)
    with pytest.raises(ReplicasUnavailableError):
        await asyncio.wait_for(carried, 1)
    assert not bench.replicas.gate.is_set()
    assert bench.meter.waiting == 0
    bench.replicas.gate.set()
    assert rows(await bench.ask(b"333")) == [3]
    assert bench.sizes == [1, 1]


@pytest.mark.parametrize("timeout_s", [0.01, 5.0])
async def test_what_nobody_waits_for_leaves_its_place_to_others(timeout_s: float) -> None:
    bench = Bench(concurrency=1, max_queued_items=2, max_delay_s=0)
    bench.replicas.gate.clear()
    first = asyncio.ensure_future(bench.ask(b"1"))
    await asyncio.sleep(0)
    gone = [asyncio.ensure_future(bench.ask(b"22", timeout_s=timeout_s)) for _ in range(2)]
    await asyncio.sleep(0)
    if timeout_s > 1:
        for one in gone:
            one.cancel()
    await asyncio.wait(gone, timeout=1)
    last = asyncio.ensure_future(bench.ask(b"333"))
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    assert rows(await last) == [3]
    await first
    assert bench.meter.counts["expired"] == 2


async def test_a_cancelled_caller_leaves_the_queue() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    first, gone, last = (asyncio.ensure_future(bench.ask(image)) for image in (b"1", b"22", b"333"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(first, last)
    assert bench.sizes == [1, 1]
    await asyncio.wait_for(bench.batcher.drained(), 1)


async def test_drained_waits_for_what_is_in_flight() -> None:
    bench = Bench()
    bench.replicas.gate.clear()
    asking = asyncio.ensure_future(bench.ask(b"1"))
    await asyncio.sleep(0)
    draining = asyncio.ensure_future(bench.batcher.drained())
    await asyncio.sleep(0.01)
    assert not draining.done()
    bench.replicas.gate.set()
    await asyncio.wait_for(draining, 1)
    await asking


async def test_what_must_be_alone_or_of_another_form_is_not_mixed() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()

    def payload(**fields: object) -> Payload:
        return Payload(PayloadKind.ENCODED, (b"x",), 1, **fields)  # type: ignore[arg-type]

    plain, lengths, large = payload(), payload(form=AnswerForm.RLE), payload(alone=True)
    order = [plain, plain, plain, lengths, lengths, large, large, plain]
    tasks = [asyncio.ensure_future(bench.batcher.submit(one, 5)) for one in order]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.sizes == [1, 2, 2, 1, 1, 1]


async def test_tensors_of_another_size_travel_apart() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    payloads = [Payload(PayloadKind.TENSOR, (bytes(12 * s * s),), 1, (3, s, s)) for s in (2, 2, 2, 4, 4)]
    tasks = [asyncio.ensure_future(bench.batcher.submit(one, 5)) for one in payloads]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.sizes == [1, 2, 2]


async def test_tensors_of_another_datatype_travel_apart() -> None:
    bench = Bench(concurrency=1, max_delay_s=0)
    bench.replicas.gate.clear()
    single = Payload(PayloadKind.TENSOR, (bytes(48),), 1, (3, 2, 2))
    half = Payload(PayloadKind.TENSOR, (bytes(24),), 1, (3, 2, 2), datatype="FP16")
    tasks = [asyncio.ensure_future(bench.batcher.submit(one, 5)) for one in (single, single, half, half, single)]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert bench.sizes == [1, 1, 2, 1]


async def test_what_is_urgent_goes_first_and_else_what_came_first() -> None:
    bench = Bench(concurrency=1, max_items=1, max_delay_s=0)
    bench.replicas.gate.clear()
    answered: list[int] = []

    async def ask(length: int, priority: int) -> None:
        payload = Payload(PayloadKind.ENCODED, (b"x" * length,), 1, priority=priority)
        answered.extend(rows(await bench.batcher.submit(payload, 5.0)))

    asked = [(1, 2), (2, 2), (3, 3), (4, 1), (5, 2), (6, 1)]
    tasks = [asyncio.ensure_future(ask(length, priority)) for length, priority in asked]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    # The first one was on its way already.
    assert answered == [1, 4, 6, 2, 5, 3]


async def test_requests_that_do_not_say_are_as_urgent_as_the_deployment_says() -> None:
    bench = Bench(concurrency=1, max_items=1, max_delay_s=0, default_priority=3)
    bench.replicas.gate.clear()
    answered: list[float] = []

    async def ask(length: int, priority: int) -> None:
        payload = Payload(PayloadKind.ENCODED, (b"x" * length,), 1, priority=priority)
        answered.extend(rows(await bench.batcher.submit(payload, 5.0)))

    tasks = [asyncio.ensure_future(ask(*each)) for each in [(1, 0), (2, 4), (3, 0), (4, 2)]]
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.gather(*tasks)
    assert answered == [1, 4, 3, 2]


async def asked(bench: Bench, *sizes: int) -> None:
    await asyncio.gather(*(bench.ask(*[b"x"] * size) for size in sizes))


async def test_a_batch_of_a_preferred_size_leaves_at_once() -> None:
    bench = Bench(preferred_sizes=(2, 4), max_items=8, max_delay_s=30)
    await asyncio.wait_for(asked(bench, 1, 1), 1)
    await asyncio.wait_for(asked(bench, 4), 1)
    assert bench.sizes == [2, 4]


async def test_what_makes_no_preferred_size_waits_for_it_even_with_idle_replicas() -> None:
    bench = Bench(preferred_sizes=(4,), max_items=8, max_delay_s=30)
    first = [asyncio.ensure_future(bench.ask(b"x")) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert bench.sizes == []
    await asyncio.wait_for(asyncio.gather(*first, bench.ask(b"x")), 1)
    assert bench.sizes == [4]


async def test_what_has_waited_long_enough_leaves_in_any_size() -> None:
    bench = Bench(preferred_sizes=(4,), max_items=8, max_delay_s=0.05)
    start = time.monotonic()
    await asyncio.wait_for(asked(bench, 1, 2), 5)
    assert time.monotonic() - start >= 0.05
    assert bench.sizes == [3]


async def test_the_largest_preferred_size_that_is_there_leaves_first() -> None:
    bench = Bench(concurrency=1, preferred_sizes=(2, 4), max_items=16, max_delay_s=30)
    bench.replicas.gate.clear()
    calls = asyncio.gather(asked(bench, 4), asked(bench, *[1] * 7))
    await asyncio.sleep(0)
    bench.replicas.gate.set()
    await asyncio.sleep(0.05)
    # One is left, which makes no preferred size and waits for another.
    assert bench.sizes == [4, 4, 2]
    await asyncio.wait_for(asyncio.gather(bench.ask(b"x"), calls), 1)
    assert bench.sizes == [4, 4, 2, 2]


async def test_requests_are_never_cut_for_a_preferred_size() -> None:
    bench = Bench(preferred_sizes=(4,), max_items=8, max_delay_s=30)
    first = asyncio.ensure_future(bench.ask(*[b"x"] * 3))
    await asyncio.sleep(0.01)
    # With the next request it would be more than any preferred size: it waits no longer, and that one does.
    second = asyncio.ensure_future(bench.ask(*[b"x"] * 3))
    await asyncio.wait_for(first, 1)
    assert bench.sizes == [3]
    await asyncio.wait_for(asyncio.gather(second, bench.ask(b"x")), 1)
    await asyncio.wait_for(bench.ask(*[b"x"] * 6), 1)
    assert bench.sizes == [3, 4, 6]


async def test_what_may_not_travel_together_does_not_wait_for_it() -> None:
    bench = Bench(preferred_sizes=(4,), max_items=8, max_delay_s=30)
    alone = Payload(PayloadKind.ENCODED, (b"x",), 1, alone=True)
    await asyncio.wait_for(bench.batcher.submit(alone, 5), 1)
    lengths = Payload(PayloadKind.ENCODED, (b"x",), 1, form=AnswerForm.RLE)
    first = asyncio.ensure_future(bench.ask(b"x"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(bench.batcher.submit(lengths, 5))
    await asyncio.wait_for(first, 1)
    assert bench.sizes == [1, 1]
    second.cancel()


async def test_who_left_the_queue_counts_for_no_preferred_size() -> None:
    bench = Bench(preferred_sizes=(3,), max_items=8, max_delay_s=30)
    first, gone = (asyncio.ensure_future(bench.ask(b"x")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    second = asyncio.ensure_future(bench.ask(b"x"))
    await asyncio.sleep(0.02)
    assert bench.sizes == []
    await asyncio.wait_for(asyncio.gather(first, second, bench.ask(b"x")), 1)
    assert bench.sizes == [3]
    assert bench.meter.waiting == 0
