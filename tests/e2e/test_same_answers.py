"""Classify, Embed, tritonclient and the trained PyTorch network agree on probabilities and embeddings."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from e2e_loop import Grafted
from enxerto.vision.catalogue import get_facts
from enxerto.vision.images import load, to_batch

TOLERANCE = 1e-4
Probabilities = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def batch(grafted: Grafted) -> npt.NDArray[np.float32]:
    """(10, 3, 224, 224), in [0, 1]."""
    spec = get_facts("efficientnet_lite0").preprocess
    return to_batch([load(path.read_bytes(), spec) for path in grafted.held_out])


@pytest.fixture(scope="module")
def both_by_torch(
    grafted: Grafted, batch: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Probabilities, npt.NDArray[np.float32]]:
    """Probabilities and embeddings of the network rebuilt from the version's weights, at the temperature that its graph
    was calibrated to."""
    import torch
    from safetensors.torch import load_file

    from enxerto.vision.finetuning import Weights
    from enxerto.vision.onnx.session import OnnxModel
    from enxerto.vision.torch.base_models import build_backbone
    from enxerto.vision.torch.classification.network import ClassifierHead, GraftedNetwork
    from enxerto.vision.torch.weights import WeightsSources

    folder = tmp_path_factory.mktemp("version")
    files = grafted.platform.client.download("digits@production", folder, roles=["OTHER", "MODEL"])
    (weights,) = [file for file in files if file.suffix == ".safetensors"]
    (graph,) = [file for file in files if file.suffix == ".onnx"]
    temperature = float(OnnxModel(graph).card.provenance["temperature"])
    backbone, _none = build_backbone("efficientnet_lite0", Weights.NONE, WeightsSources())
    network = GraftedNetwork(backbone, ClassifierHead(1280, 10), get_facts("efficientnet_lite0").preprocess).eval()
    network.load_state_dict(load_file(weights))
    with torch.inference_mode():
        images = torch.from_numpy(batch)
        return (network(images) / temperature).softmax(1).numpy(), network.features(images).numpy()


@pytest.fixture(scope="module")
def by_torch(both_by_torch: tuple[Probabilities, npt.NDArray[np.float32]]) -> Probabilities:
    return both_by_torch[0]


def test_classify_answers_as_torch_does(grafted: Grafted, by_torch: Probabilities) -> None:
    predictions = grafted.platform.client.classify("digits", grafted.held_out, top_k=10)
    for prediction, expected in zip(predictions, by_torch, strict=True):
        for category in prediction.categories:
            assert category.probability == pytest.approx(expected[category.index], abs=TOLERANCE)


def test_embed_answers_as_torch_does(
    grafted: Grafted, both_by_torch: tuple[Probabilities, npt.NDArray[np.float32]]
) -> None:
    embeddings = grafted.platform.client.embed("digits", grafted.held_out)
    np.testing.assert_allclose([one.values for one in embeddings], both_by_torch[1], atol=TOLERANCE)


def test_feedback_shows_in_the_deployments_quality(grafted: Grafted) -> None:
    client = grafted.platform.client
    predictions = client.classify("digits", grafted.held_out)
    right = sum(prediction.label == str(digit) for digit, prediction in enumerate(predictions))
    assert client.feedback("digits", [(one, str(digit)) for digit, one in enumerate(predictions)]) == right
    quality = client.quality("digits")
    assert quality.versions[0].model_version == predictions[0].model_version
    assert quality.versions[0].observed_images > 0
    assert (quality.accuracies[0].feedback, quality.accuracies[0].accuracy) == (10, right / 10)


def test_an_unmodified_tritonclient_gets_the_same(
    grafted: Grafted, batch: npt.NDArray[np.float32], by_torch: Probabilities, tmp_path: Path
) -> None:
    np.save(tmp_path / "batch.npy", batch)
    program = Path(__file__).with_name("triton_caller.py")
    address = grafted.platform.address("inference")
    command = [
        sys.executable,
        str(program),
        address,
        "digits",
        str(tmp_path / "batch.npy"),
        *map(str, grafted.held_out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "images" in {name for name, _datatype in answer["inputs"]}
    np.testing.assert_allclose(answer["tensor"], by_torch, atol=TOLERANCE)
    np.testing.assert_allclose(answer["encoded"], by_torch, atol=TOLERANCE)
