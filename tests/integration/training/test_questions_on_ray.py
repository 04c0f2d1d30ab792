"""What is asked of a cluster before training, each once on a real Ray."""

import hashlib
import time

import grpc
import pytest
import torch
from safetensors.torch import save

from enxerto.training.v1 import training_run_pb2, training_service_pb2
from enxerto.vision.torch.base_models import get_base_model
from training_calls import RUN_S, refusal, weights_messages

pytestmark = pytest.mark.timeout(400)
BASE_MODEL = "baseModels/efficientnet-lite0"


def test_an_estimate_is_measured_on_the_cluster(cluster, snapshot):
    spec = training_run_pb2.TrainingSpec(
        snapshot=snapshot, base_model="baseModels/efficientnet-lite0", model="projects/default/models/digits", epochs=5
    )
    request = training_service_pb2.EstimateTrainingRunRequest(parent="projects/default", spec=spec)
    with cluster.stubs() as (_, training):
        *_, last = training.EstimateTrainingRun(request, timeout=RUN_S)
        began = time.monotonic()
        (again,) = training.EstimateTrainingRun(request, timeout=RUN_S)
    assert last.estimate.images_per_second > 0
    assert last.estimate.duration.ToTimedelta() > last.estimate.epoch_duration.ToTimedelta()
    assert again.estimate == last.estimate
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_base_models_are_ranked_on_the_cluster(cluster, snapshot):
    request = training_service_pb2.RecommendBaseModelsRequest(
        parent="projects/default", snapshot=snapshot, base_models=[BASE_MODEL, "baseModels/resnet18"], max_images=60
    )
    with cluster.stubs() as (_, training):
        *_, last = training.RecommendBaseModels(request, timeout=RUN_S)
    (score,) = last.ranking.scores
    assert score.base_model == BASE_MODEL
    assert 0.0 < score.probe_accuracy <= 1.0
    assert score.time_per_image.ToTimedelta().total_seconds() > 0
    assert score.parameter_count > 3_000_000
    # Nobody has its weights, and none are downloaded.
    assert list(last.ranking.skipped) == ["baseModels/resnet18"]


@pytest.mark.slow
def test_weights_that_nobody_has_published_are_compared_with_the_network_on_the_cluster(cluster):
    network = get_base_model("mobilenet_v3_small").construct()
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    data, name = save(tensors), "baseModels/mobilenet-v3-small"
    tensors[next(iter(tensors))] = torch.zeros(3)
    with cluster.stubs() as (_, training):
        refused = refusal(training.ImportBaseModelWeights, weights_messages(save(tensors), name), timeout=RUN_S)
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WEIGHTS_REFUSED")
        kept = training.ImportBaseModelWeights(weights_messages(data, name), timeout=RUN_S)
    assert kept.imported_weights == hashlib.sha256(data).hexdigest()
