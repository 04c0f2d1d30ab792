"""Page tokens that no answer gave, through the front door."""

import base64

import grpc
import pytest

from enxerto.training.v1 import (
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    sweep_service_pb2,
    sweep_service_pb2_grpc,
    training_service_pb2,
    training_service_pb2_grpc,
)
from training_calls import refusal
from training_stack import Stack

PROJECT = "projects/default"


@pytest.mark.parametrize("key", ["pets", "²", "12345678901234567890"])
def test_a_token_that_is_no_number_is_refused(service: Stack, key: str) -> None:
    token = base64.urlsafe_b64encode(key.encode()).decode()
    with service.channel() as channel:
        datasets = dataset_service_pb2_grpc.DatasetServiceStub(channel)
        training = training_service_pb2_grpc.TrainingServiceStub(channel)
        sweeps = sweep_service_pb2_grpc.SweepServiceStub(channel)
        snapshots = dataset_service_pb2.ListSnapshotsRequest(parent=f"{PROJECT}/datasets/pets", page_token=token)
        for failed in (
            refusal(datasets.ListSnapshots, snapshots),
            refusal(
                training.ListTrainingRuns,
                training_service_pb2.ListTrainingRunsRequest(parent=PROJECT, page_token=token),
            ),
            refusal(sweeps.ListSweeps, sweep_service_pb2.ListSweepsRequest(parent=PROJECT, page_token=token)),
        ):
            assert failed.code == grpc.StatusCode.INVALID_ARGUMENT
            assert set(failed.violations) == {"page_token"}
