"""What the callers of a project may send, through the front door."""

from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from enxerto.inference.v1 import vision_pb2, vision_service_pb2
from grpc_details import FailedCall, failed_call
from inference_front import Front, running_front
from inference_images import GOOD

DEPLOYMENT = "projects/default/deployments/class"
IMAGE = next(iter(GOOD.values()))


def request(images: int) -> vision_service_pb2.ClassifyRequest:
    return vision_service_pb2.ClassifyRequest(deployment=DEPLOYMENT, images=[vision_pb2.Image(content=IMAGE)] * images)


async def refusal(front: Front, images: int) -> FailedCall:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await front.vision.Classify(request(images))
    return failed_call(refused.value)


async def test_a_project_that_sends_too_much_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with running_front(tmp_path, project_images_per_s=0.01, project_burst_images=4) as front:
        assert len((await front.vision.Classify(request(3))).results) == 3
        refused = await refusal(front, 2)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.info.reason == "RATE_LIMITED"
        retry = refused.detail(error_details_pb2.RetryInfo)
        assert retry is not None
        assert retry.retry_delay.ToTimedelta().total_seconds() == pytest.approx(100, abs=5)
        # What is left is not taken by what was refused.
        assert len((await front.vision.Classify(request(1))).results) == 1


async def test_a_request_larger_than_the_burst_passes_a_full_bucket(tmp_path: Path) -> None:
    async with running_front(tmp_path, project_images_per_s=0.01, project_burst_images=2) as front:
        assert len((await front.vision.Classify(request(5))).results) == 5
        refused = await refusal(front, 1)
        assert refused.info.reason == "RATE_LIMITED"


async def test_without_a_limit_nothing_is_counted(tmp_path: Path) -> None:
    async with running_front(tmp_path) as front:
        for _ in range(20):
            assert len((await front.vision.Classify(request(32))).results) == 32
