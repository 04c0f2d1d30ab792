"""The catalogue of base models, through the front door of a service that has no cluster."""

import grpc

from enxerto.training.v1 import training_service_pb2
from training_calls import refusal


def _ids(training, **request):
    """The ids of all pages, and how many pages there were."""
    ids, pages, token = [], 0, ""
    while True:
        page = training.ListBaseModels(training_service_pb2.ListBaseModelsRequest(page_token=token, **request))
        ids += [one.name.removeprefix("baseModels/") for one in page.base_models]
        pages += 1
        if not (token := page.next_page_token):
            return ids, pages


def test_a_search_finds_backbones_of_timm_too_page_by_page(service):
    with service.stubs() as (_, training):
        listed, _ = _ids(training)
        found, pages = _ids(training, search="convnext", page_size=50)
    assert listed == sorted(listed)
    assert "convnext-tiny" in listed
    assert not any(one.startswith("timm-") for one in listed)
    assert found == sorted(set(found))
    assert all("convnext" in one for one in found)
    assert {"convnext-tiny", "timm-convnext-atto", "timm-convnext-atto-d2-in1k"} <= set(found)
    assert pages == -(-len(found) // 50) > 1


def test_a_backbone_of_timm_says_what_can_be_unfrozen(service):
    with service.stubs() as (_, training):
        name = "baseModels/timm-convnext-atto"
        model = training.GetBaseModel(training_service_pb2.GetBaseModelRequest(name=name))
        missing = training_service_pb2.GetBaseModelRequest(name="baseModels/timm-convnext-ato")
        refused = refusal(training.GetBaseModel, missing)
    assert list(model.stages) == ["stem", "stage0", "stage1", "stage2", "stage3", "top"]
    assert (model.feature_dim, model.preprocess.height, model.library) == (320, 224, "timm")
    assert model.parameter_count > 3_000_000
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert refused.reason == "BASE_MODEL_NOT_FOUND"
    assert "did you mean baseModels/timm-convnext-atto" in refused.message
