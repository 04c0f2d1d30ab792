"""Weights brought in by hand, through the front door of a service that has no cluster."""

import hashlib

import grpc

from enxerto.registry.v1 import registry_service_pb2
from enxerto.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from enxerto.training.v1 import training_service_pb2
from training_calls import packaged_weights, refusal, weights_messages

NAME = "baseModels/efficientnet-lite0"


def test_published_weights_are_kept_in_the_registry_and_shown(service):
    data = packaged_weights()
    sha256 = hashlib.sha256(data).hexdigest()
    with service.stubs() as (_, training):
        assert training.ImportBaseModelWeights(weights_messages(data, NAME)).imported_weights == sha256
        request = training_service_pb2.GetBaseModelRequest(name=NAME)
        assert training.GetBaseModel(request).imported_weights == sha256
        other = training_service_pb2.GetBaseModelRequest(name="baseModels/resnet18")
        assert training.GetBaseModel(other).imported_weights == ""
    with grpc.insecure_channel(service.registry.address) as channel:
        request = registry_service_pb2.DownloadBlobRequest(parent="projects/base-models", sha256=sha256)
        stored = b"".join(one.chunk for one in RegistryServiceStub(channel).DownloadBlob(request))
    assert stored == data


def test_a_pickle_that_nobody_has_published_is_refused_unopened(service):
    with service.stubs() as (_, training):
        refused = refusal(training.ImportBaseModelWeights, weights_messages(b"\x80\x04cposix\nsystem\n." * 10, NAME))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == "WEIGHTS_REFUSED"
    assert "safetensors" in refused.message
