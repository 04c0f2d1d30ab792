import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from enxerto.vision.images import to_batch
from enxerto.vision.onnx.parity import PARITY_GATE, compare
from enxerto.vision.onnx.session import ModelCardError, OnnxClassifier, choose_providers
from enxerto.vision.snapshots import FolderBlobs, Manifest
from enxerto.vision.finetuning import Weights
from enxerto.vision.specs import LabelMap, PreprocessSpec, Split, Task, TensorSpec
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.data import ImageArray, load_split
from enxerto.vision.torch.export import check_parity, export
from enxerto.vision.torch.network import GraftedNetwork, LinearHead
from enxerto.vision.torch.weights import WeightsSources

SMALL = PreprocessSpec(64, 64, 0.875, "bicubic", (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
LABELS = LabelMap(tuple(f"class {index}" for index in range(10)))
PROVENANCE = {"dataset": "sha256:1", "épreuve": "oui"}


@pytest.fixture(scope="module")
def images(digits: tuple[Manifest, FolderBlobs]) -> ImageArray:
    return load_split(*digits, Split.VAL, SMALL)


@pytest.fixture(scope="module")
def network(images: ImageArray) -> GraftedNetwork:
    backbone, _ = build_backbone("efficientnet_lite0", Weights.PRETRAINED, WeightsSources(download=False))
    head = LinearHead(1280, 10)
    network = GraftedNetwork(backbone, head, SMALL).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        head.calibrate(network.features(images.batch(slice(None)).float() / 255))
        torch.nn.init.normal_(head.linear.weight, std=0.05)
    return network


@pytest.fixture(scope="module")
def exported(network: GraftedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export(network, path, labels=LABELS, preprocess=SMALL, provenance=PROVENANCE)
    return path


def test_the_file_agrees_with_torch_at_every_batch_size(
    network: GraftedNetwork, exported: Path, images: ImageArray
) -> None:
    parity = check_parity(network, exported, images)
    assert parity.passes
    assert parity.max_abs_difference < 1e-4
    assert (parity.agreement, parity.samples, parity.batch_sizes) == (1.0, len(images), (1, 2, 8))


def test_the_file_says_all_that_serving_needs(exported: Path) -> None:
    card = OnnxClassifier(exported).card
    assert (card.task, card.labels, card.preprocess, card.provenance) == (
        Task.CLASSIFICATION, LABELS, SMALL, PROVENANCE,
    )  # fmt: skip
    assert card.inputs == (TensorSpec("images", "FP32", (-1, 3, 64, 64)),)
    assert card.outputs == (TensorSpec("probabilities", "FP32", (-1, 10)),)


def test_probabilities_add_up_from_pictures_in_the_unit_range(exported: Path, images: ImageArray) -> None:
    classifier = OnnxClassifier(exported.read_bytes(), threads=2)
    answers = classifier.run(to_batch(list(images.images[:5])))
    assert answers.shape == (5, 10)
    assert np.allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert classifier.providers[-1] == "CPUExecutionProvider"


def test_the_file_names_no_path_of_this_machine(exported: Path) -> None:
    assert b"site-packages" not in exported.read_bytes()
    assert str(Path.cwd()).encode() not in exported.read_bytes()


def test_the_export_leaves_the_network_as_it_was(network: GraftedNetwork) -> None:
    assert isinstance(network.head, LinearHead)


def test_files_that_cannot_be_served_are_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelCardError, match="cannot load"):
        OnnxClassifier(b"nonsense")
    model = onnx.load(exported)
    kept = [entry for entry in model.metadata_props if entry.key != "enxerto.labels"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "no_labels.onnx")
    with pytest.raises(ModelCardError, match=r"enxerto\.labels"):
        OnnxClassifier(tmp_path / "no_labels.onnx")
    model.metadata_props.add(key="enxerto.labels", value=json.dumps(["just", "two"]))
    onnx.save(model, tmp_path / "few_labels.onnx")
    with pytest.raises(ModelCardError, match="output must be"):
        OnnxClassifier(tmp_path / "few_labels.onnx")


@pytest.mark.parametrize(
    ("available", "tensorrt", "expected"),
    [
        (["CPUExecutionProvider"], True, ("CPUExecutionProvider",)),
        (["AzureExecutionProvider", "CPUExecutionProvider"], False, ("CPUExecutionProvider",)),
        (["CPUExecutionProvider", "CUDAExecutionProvider"], False, ("CUDAExecutionProvider", "CPUExecutionProvider")),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            True,
            ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        ),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            False,
            ("CUDAExecutionProvider", "CPUExecutionProvider"),
        ),
    ],
)
def test_providers(available: list[str], tensorrt: bool, expected: tuple[str, ...]) -> None:
    assert choose_providers(available, tensorrt=tensorrt) == expected


def _answers(images: np.ndarray) -> np.ndarray:
    return np.stack([images.mean(axis=(1, 2, 3)), 1 - images.mean(axis=(1, 2, 3))], axis=1).astype(np.float32)


def test_a_network_that_is_wrong_at_one_batch_size_fails_the_gate() -> None:
    images = np.linspace(0, 0.4, 16, dtype=np.float32).reshape(16, 1, 1, 1).repeat(3, axis=1)
    assert compare(_answers, _answers, images).agreement == 1.0
    wrong = compare(_answers, lambda part: _answers(part)[:, ::-1] if len(part) == 2 else _answers(part), images)
    assert wrong.agreement < PARITY_GATE
    assert not wrong.passes
    assert wrong.max_abs_difference == pytest.approx(1.0)


def test_nan_fails_the_gate() -> None:
    images = np.zeros((4, 3, 1, 1), dtype=np.float32)
    parity = compare(_answers, lambda part: np.full((len(part), 2), np.nan, np.float32), images)
    assert parity.agreement == 0.0
    assert not parity.passes


def test_nothing_outside_vision_torch_imports_torch() -> None:
    names = (
        "specs", "images", "archives", "imagefolder", "snapshots", "metrics", "catalogue", "report",
        "onnx.session", "onnx.parity",
    )  # fmt: skip
    imports = "; ".join(f"import enxerto.vision.{name}" for name in names)
    subprocess.run([sys.executable, "-c", f"import sys; {imports}; assert 'torch' not in sys.modules"], check=True)
