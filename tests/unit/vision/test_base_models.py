"""Backbones by name: their stages, their features and their pyramids."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from enxerto.kernel.errors import InvalidArgumentError
from enxerto.vision.catalogue import BaseModelNotFoundError, get_facts, list_facts
from enxerto.vision.catalogue.timm_names import plain_name
from enxerto.vision.finetuning import FinetuneSpec, Weights
from enxerto.vision.specs import Task
from enxerto.vision.torch.base_models import (
    ChainBackbone,
    StagedBackbone,
    build_backbone,
    get_base_model,
    list_base_models,
    preprocess_of,
    register_base_model,
)
from enxerto.vision.torch.base_models.families import split_vit
from enxerto.vision.torch.base_models.timm_table import architecture, published
from enxerto.vision.torch.weights import WeightsSources

_NONE = WeightsSources(download=False)
_BACKBONES = [model.facts.name for model in list_base_models()]


def _random(name: str) -> StagedBackbone:
    return build_backbone(name, Weights.NONE, _NONE)[0]


@pytest.mark.parametrize("name", _BACKBONES)
def test_the_catalogues_facts_are_true(name: str) -> None:
    model = get_base_model(name)
    with torch.device("meta"):
        backbone = model.backbone(model.construct()).eval()
        features = backbone.features(torch.empty(1, 3, model.facts.preprocess.height, model.facts.preprocess.width))
    assert tuple(stage for stage, _ in backbone.stages) == model.facts.stages
    assert sum(parameter.numel() for parameter in backbone.parameters()) == model.facts.parameters
    assert features.shape == (1, model.facts.feature_dim) == (1, backbone.feature_dim)
    in_stages = [parameter for _, stage in backbone.stages for parameter in stage.parameters()]
    assert len(set(map(id, in_stages))) == len(in_stages) == len(list(backbone.parameters()))


def test_every_backbone_of_the_catalogue_can_be_built_and_nothing_else() -> None:
    assert [model.facts for model in list_base_models()] == [
        facts for facts in list_facts() if facts.task is Task.CLASSIFICATION
    ]
    with pytest.raises(BaseModelNotFoundError, match="did you mean resnet18"):
        get_base_model("resnet19")
    with pytest.raises(InvalidArgumentError, match="a network for segmentation, not a backbone"):
        get_base_model("unet")
    with pytest.raises(ValueError, match="registered"):
        register_base_model(get_base_model("resnet18"))


@pytest.mark.parametrize(
    ("name", "last", "side"),
    [
        ("efficientnet_lite0", ["classifier"], 64),
        ("resnet18", ["fc"], 64),
        ("efficientnet_b0", ["classifier"], 64),
        ("mobilenet_v3_small", ["classifier.2", "classifier.3"], 64),
        ("convnext_tiny", ["classifier.2"], 64),
        ("vit_b_32", ["heads"], 224),
    ],
)
def test_features_through_the_librarys_own_classifier_are_the_librarys_answer(
    name: str, last: list[str], side: int
) -> None:
    model = get_base_model(name)
    network = model.construct().eval()
    images = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        expected = network(images)
        answer = model.backbone(network).eval().features(images)
        for part in last:
            answer = network.get_submodule(part)(answer)
    torch.testing.assert_close(answer, expected)


def test_a_vit_takes_another_size_and_has_no_pyramid() -> None:
    backbone = _random("vit_b_32")
    with torch.inference_mode():
        assert backbone.features(torch.rand(1, 3, 96, 128)).shape == (1, 768)
    assert not get_base_model("vit_b_32").facts.has_pyramid
    with pytest.raises(InvalidArgumentError, match="no feature pyramid"):
        backbone.pyramid_info()


@pytest.mark.parametrize(
    ("name", "strides", "stages"),
    [
        ("timm_test_resnet", (2, 4, 8, 16, 32), ("stem", "layer1", "layer2", "layer3", "layer4")),
        ("timm_test_efficientnet_r160_in1k", (2, 4, 8, 16, 32), ("stem", *(f"block{i}" for i in range(5)), "top")),
        ("timm_convnext_atto", (4, 8, 16, 32), ("stem", *(f"stage{i}" for i in range(4)), "top")),
        ("timm_test_vit", (), ("stem", *(f"block{i}" for i in range(6)), "top")),
    ],
)
def test_any_network_of_timm_is_a_backbone(name: str, strides: tuple[int, ...], stages: tuple[str, ...]) -> None:
    backbone = _random(name).eval()
    assert tuple(stage for stage, _ in backbone.stages) == stages
    in_stages = [parameter for _, stage in backbone.stages for parameter in stage.parameters()]
    assert len(set(map(id, in_stages))) == len(in_stages) == len(list(backbone.parameters()))
    side = get_base_model(name).facts.preprocess.height
    images = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        assert backbone.features(images).shape == (2, backbone.feature_dim)
        if not strides:
            with pytest.raises(InvalidArgumentError, match="no feature pyramid"):
                backbone.pyramid(images)
            return
        maps = backbone.pyramid(images)
    levels = backbone.pyramid_info()
    assert tuple(level.stride for level in levels) == strides
    assert [level.stage for level in levels] == sorted({level.stage for level in levels})
    for level, features in zip(levels, maps, strict=True):
        assert features.shape == (2, level.channels, side // level.stride, side // level.stride)


def test_a_network_of_timm_with_its_size_built_in_takes_another() -> None:
    backbone, _ = build_backbone("timm_test_vit", Weights.NONE, _NONE, image_size=96)
    with torch.inference_mode():
        assert backbone.features(torch.rand(1, 3, 96, 96)).shape == (1, 64)


@pytest.mark.parametrize(
    ("name", "side", "text"),
    [
        ("timm_mixer_s16_224", 128, "must be 224, not 128"),
        ("timm_dla46_c", 176, "must be 224 or a multiple of 32, not 176"),
        ("timm_test_maxvit", 40, "multiple of 32, not 40"),
    ],
)
def test_a_backbone_is_not_built_for_a_side_that_it_cannot_take(name: str, side: int, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        build_backbone(name, Weights.NONE, _NONE, image_size=side)


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize(("name", "side"), [("timm_dla46_c", 96), ("timm_test_coatnet", 96), ("timm_test_vit", 48)])
def test_a_backbone_takes_the_multiples_that_the_catalogue_names(name: str, side: int) -> None:
    backbone, _ = build_backbone(name, Weights.NONE, _NONE, image_size=side)
    with torch.inference_mode():
        assert backbone.features(torch.rand(2, 3, side, side)).shape == (2, backbone.feature_dim)


def test_the_catalogue_knows_every_backbone_of_timm() -> None:
    facts = get_facts("timm_test_vit")
    assert (facts.preprocess.height, facts.preprocess.crop_fraction, facts.preprocess.mean[0]) == (160, 0.95, 0.5)
    assert facts.download is not None
    assert facts.download.filename == "timm_test_vit.safetensors"
    assert facts.licence == "apache-2.0"
    tagged = get_facts("timm_resnet18_a1_in1k")
    assert tagged.library == "timm/resnet18.a1_in1k"
    assert (tagged.parameters, tagged.stages) == (get_facts("resnet18").parameters, get_facts("resnet18").stages)
    with pytest.raises(BaseModelNotFoundError, match=r"'timm_resnet50x' .* did you mean timm_resnet50"):
        get_facts("timm_resnet50x")
    with pytest.raises(BaseModelNotFoundError):
        get_facts("timm_Bad-Name")


def test_the_table_of_timm_is_of_the_installed_version() -> None:
    table = json.loads(resources.files("enxerto.vision.catalogue").joinpath("timm.json").read_text())
    assert table["timm"] == timm.__version__
    # What is left out is no network that gives one vector for one picture, and cannot be a backbone.
    left_out = set(timm.list_models()) - set(table["architectures"])
    assert all(name.endswith("_enc") or name.startswith("gemma4_vit") for name in left_out)
    assert {plain_name(name) for name in timm.list_models() if name not in left_out} <= set(table["published"])


@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_vit", "mobilenetv3_small_050", "regnetx_002", "convnext_atto", "mixer_s16_224", "dla46_c"],
)
def test_the_table_says_what_a_network_of_timm_is(name: str) -> None:
    facts, made = get_facts(f"timm_{name}"), architecture(name)
    assert (facts.parameters, facts.feature_dim) == (made["parameters"], made["feature_dim"])
    assert (list(facts.stages), facts.has_pyramid) == (made["stages"], made["has_pyramid"])
    assert facts.side_step == made.get("side_step", 1)
    assert published(name)["url"] == (facts.download.url if facts.download else "")


def test_preprocessing_follows_the_encoder_and_the_size_that_is_asked_for() -> None:
    own = get_facts("unet").preprocess
    unet = preprocess_of(get_facts("unet"), FinetuneSpec.with_defaults("unet", encoder="timm_test_vit", image_size=96))
    assert (unet.height, unet.width, unet.resize, unet.mean) == (96, 96, own.resize, (0.5, 0.5, 0.5))
    resnet = preprocess_of(get_facts("resnet18"), FinetuneSpec.with_defaults("resnet18", image_size=112))
    assert (resnet.height, resnet.crop_fraction) == (112, 0.875)
    own_size = preprocess_of(get_facts("timm_test_vit"), FinetuneSpec.with_defaults("timm_test_vit"))
    assert (own_size.height, own_size.interpolation) == (160, "bicubic")


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("efficientnet_lite0", (2, 4, 8, 16, 32), (16, 24, 40, 112, 1280)),
        ("resnet18", (2, 4, 8, 16, 32), (64, 64, 128, 256, 512)),
        ("vgg16", (2, 4, 8, 16, 32), (64, 128, 256, 512, 512)),
    ],
)
def test_a_pyramid_is_the_last_map_of_each_stride(
    name: str, strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    assert get_base_model(name).facts.has_pyramid
    backbone = _random(name).train()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    levels = backbone.pyramid_info()
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
    assert tuple(level.stride for level in levels) == strides
    assert tuple(level.channels for level in levels) == channels
    with torch.inference_mode():
        images = torch.rand(1, 3, 64, 96)
        maps = backbone.eval().pyramid(images)
        running = images
        outputs = [running := stage(running) for _, stage in backbone.stages[: levels[-1].stage + 1]]
    for level, features in zip(levels, maps, strict=True):
        assert features.shape == (1, level.channels, 64 // level.stride, 96 // level.stride)
        torch.testing.assert_close(features, outputs[level.stage])


# Free rows and columns take the exporter minutes.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pyramid_takes_any_size_and_goes_to_onnx(tmp_path: Path) -> None:
    class Pyramid(nn.Module):
        def __init__(self, backbone: StagedBackbone) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.backbone.pyramid(images))

    network = Pyramid(_random("efficientnet_lite0")).eval()
    dims = {0: torch.export.Dim("n", min=1), 2: torch.export.Dim("h", min=32), 3: torch.export.Dim("w", min=32)}
    program = torch.onnx.export(
        network, (torch.rand(2, 3, 64, 96),), input_names=["images"], dynamic_shapes=(dims,), dynamo=True, verbose=False
    )
    assert program is not None
    program.save(tmp_path / "pyramid.onnx")
    images = np.random.default_rng(0).random((3, 3, 65, 97), dtype=np.float32)
    answer = onnxruntime.InferenceSession(tmp_path / "pyramid.onnx").run(None, {"images": images})
    with torch.inference_mode():
        expected = network(torch.from_numpy(images))
    for ours, theirs in zip(answer, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-4)


def test_a_backbone_without_maps_says_so() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    flat(torch.zeros(1, 3, 128, 192))
    backbone = ChainBackbone([("all", flat)], nn.Identity(), 4, name="flat")
    with pytest.raises(InvalidArgumentError, match="flat has no feature pyramid"):
        backbone.pyramid(torch.zeros(1, 3, 128, 192))


def test_a_vision_transformer_keeps_its_batch_free() -> None:
    network = VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8).eval()
    stages, top = split_vit(network)
    chain = nn.Sequential(*(stage for _, stage in stages), top)
    program = torch.export.export(
        chain, (torch.rand(2, 3, 32, 32),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    images = torch.rand(5, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), chain(images))
