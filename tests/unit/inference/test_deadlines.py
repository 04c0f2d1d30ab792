"""How long a request may take: its caller's own deadline, and the setting for those without one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enxerto.inference.oip import open_inference_pb2 as pb
from enxerto.inference.v1.vision_service_pb2 import ClassifyRequest, PredictStreamRequest
from inference_front import Front, deployment, infer_request, plain, running_front

SETTING_S, LONGER_S, SHORTER_S = 100.0, 600.0, 50.0
IMAGES = plain((255, 0, 0))


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path, request_timeout_s=SETTING_S) as running:
        yield running


@pytest.fixture
def allowed(front: Front, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each call to a replica was given, rounded to tens."""
    predict, seconds = front.replicas.predict, []

    async def note(endpoint: Any, version: Any, payloads: Any, timeout_s: float) -> Any:
        seconds.append(round(timeout_s, -1))
        return await predict(endpoint, version, payloads, timeout_s)

    monkeypatch.setattr(front.replicas, "predict", note)
    return seconds


@pytest.mark.parametrize(
    ("deadline_s", "expected_s"), [(None, SETTING_S), (LONGER_S, LONGER_S), (SHORTER_S, SHORTER_S)]
)
async def test_a_callers_own_deadline_counts(
    front: Front, allowed: list[float], deadline_s: float | None, expected_s: float
) -> None:
    await front.vision.Classify(ClassifyRequest(deployment=deployment("class"), images=IMAGES), timeout=deadline_s)
    await front.open.ModelInfer(infer_request("class", [IMAGES[0].content]), timeout=deadline_s)
    assert allowed == [expected_s] * 2


@pytest.mark.parametrize(
    ("parameter_s", "deadline_s", "expected_s"),
    [(LONGER_S, None, LONGER_S), (SHORTER_S, None, SHORTER_S), (SHORTER_S, LONGER_S, SHORTER_S), (LONGER_S, 20, 20)],
)
async def test_the_parameter_bounds_beside_the_deadline(
    front: Front, allowed: list[float], parameter_s: float, deadline_s: float | None, expected_s: float
) -> None:
    timeout = pb.InferParameter(int64_param=int(parameter_s * 1e6))
    request = infer_request("class", [IMAGES[0].content], parameters={"timeout": timeout})
    await front.open.ModelInfer(request, timeout=deadline_s)
    assert allowed == [expected_s]


async def test_the_deadline_of_a_stream_is_not_that_of_its_requests(front: Front, allowed: list[float]) -> None:
    typed = PredictStreamRequest(classify=ClassifyRequest(deployment=deployment("class"), images=IMAGES))
    (answer,) = [one async for one in front.vision.PredictStream(iter([typed]), timeout=LONGER_S)]
    assert answer.WhichOneof("response") == "classify"
    plain_request = infer_request("class", [IMAGES[0].content])
    timeout = pb.InferParameter(int64_param=int(SHORTER_S * 1e6))
    hasty = infer_request("class", [IMAGES[0].content], parameters={"timeout": timeout})
    for request in (plain_request, hasty):
        (said,) = [one async for one in front.open.ModelStreamInfer(iter([request]), timeout=LONGER_S)]
        assert not said.error_message
    assert allowed == [SETTING_S, SETTING_S, SHORTER_S]
