"""Every task's graph: exported, described, read again and compared with the module that it came from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from enxerto.vision.contracts import output_names
from enxerto.vision.onnx.parity import compare
from enxerto.vision.onnx.session import CPU, CUDA, TENSORRT, OnnxModel, choose_providers
from enxerto.vision.specs import PreprocessSpec, Resize, Task, TensorSpec
from enxerto.vision.torch.export import ExportError, check_parity, export, torch_network

# Every task's graph is exported once.
pytestmark = pytest.mark.xdist_group("export")
NAMES = ("a", "b", "c")
PROVENANCE = {"dataset_digest": "0123", "base_model": "tiny"}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images).mean(dim=(2, 3)).mul(20).softmax(dim=1)


class Embedder(Classifier):
    gives_optional = True

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(images).mean(dim=(2, 3))
        return features.mul(20).softmax(dim=1), features


class Detector(nn.Module):
    """A box around the brightest column, 100 times."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(32, 100)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bright = images.mean(dim=(1, 2))
        scores = self.scores(bright).sigmoid().sort(dim=1, descending=True).values
        left = bright.argmax(dim=1, keepdim=True).float().expand(-1, 100)
        boxes = torch.stack([left, torch.zeros_like(left), left + 9, torch.full_like(left, 20.0)], dim=2)
        return boxes, scores, (scores > 0.5).long(), scores > 0.4


class Segmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = self.body(images).softmax(dim=1).max(dim=1)
        return best.indices.to(torch.uint8), best.values.mean(dim=(1, 2))


class Painter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.up(nn.functional.interpolate(self.down(images), scale_factor=4.0)).sigmoid()


MODULES = {
    Task.CLASSIFICATION: Classifier,
    Task.DETECTION: Detector,
    Task.SEGMENTATION: Segmenter,
    Task.STYLE: Painter,
}


def spec(task: Task) -> PreprocessSpec:
    resize = Resize.FIT if task is Task.STYLE else Resize.LETTERBOX
    return PreprocessSpec(32, 32, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3, resize)


def module(task: Task) -> nn.Module:
    torch.manual_seed(0)
    return MODULES[task]().eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for task in Task:
        path = folder / f"{task}.onnx"
        export(
            module(task),
            path,
            task=task,
            class_names=NAMES,
            preprocess=spec(task),
            provenance={**PROVENANCE, "t": task},
        )
    return {task: folder / f"{task}.onnx" for task in Task}


@pytest.mark.parametrize("task", Task)
def test_the_file_agrees_with_torch_at_every_batch_size(task: Task, files: dict[Task, Path]) -> None:
    images = np.random.default_rng(1).random((9, 3, 32, 32), np.float32)
    parity = check_parity(module(task), OnnxModel(files[task]), images)
    assert parity.passes
    assert parity.max_abs_difference < 1e-4
    assert (parity.agreement, parity.samples, parity.batch_sizes) == (1.0, 9, (1, 2, 8))


def test_pictures_of_any_size_are_painted(files: dict[Task, Path]) -> None:
    model = OnnxModel(files[Task.STYLE])
    for height, width in ((8, 8), (48, 24), (32, 80)):
        images = np.random.default_rng(1).random((3, 3, height, width), np.float32)
        assert check_parity(module(Task.STYLE), model, images).passes


@pytest.mark.parametrize("task", Task)
def test_the_file_says_all_that_serving_needs(task: Task, files: dict[Task, Path]) -> None:
    card = OnnxModel(files[task]).card
    assert (card.task, card.labels.names, card.preprocess) == (task, NAMES, spec(task))
    assert card.provenance == {**PROVENANCE, "t": task}
    sides = (-1, -1) if task is Task.STYLE else (32, 32)
    assert card.inputs == (TensorSpec("images", "FP32", (-1, 3, *sides)),)
    assert tuple(one.name for one in card.outputs) == output_names(task)


def test_a_classifier_may_give_its_embedding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    served, path = Embedder().eval(), tmp_path / "model.onnx"
    task = Task.CLASSIFICATION
    export(served, path, task=task, class_names=NAMES, preprocess=spec(task), provenance=PROVENANCE)
    model = OnnxModel(path)
    assert model.card.outputs[1] == TensorSpec("embedding", "FP32", (-1, 3))
    images = np.random.default_rng(1).random((9, 3, 32, 32), np.float32)
    assert check_parity(served, model, images).agreement == 1.0
    right = torch_network(served, task)

    def turned(part: np.ndarray) -> dict[str, np.ndarray]:
        return {**right(part), "embedding": right(part)["embedding"][:, ::-1]}

    assert compare(task, right, turned, images).agreement == 0.0


def test_the_file_names_no_path_of_this_machine(files: dict[Task, Path]) -> None:
    for path in files.values():
        assert b"site-packages" not in path.read_bytes()
        assert str(Path.cwd()).encode() not in path.read_bytes()


class Talkative(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.sum() > 0:
            return images
        return -images


def test_a_module_that_cannot_be_exported_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="torch cannot export"):
        export(
            Talkative(),
            tmp_path / "x.onnx",
            task=Task.STYLE,
            class_names=NAMES,
            preprocess=spec(Task.STYLE),
            provenance={},
        )


@pytest.mark.parametrize(
    ("available", "device", "expected"),
    [
        ([CPU], "cuda:0", (CPU,)),
        (["AzureExecutionProvider", CPU], "cuda", (CPU,)),
        ([CUDA, CPU], "cpu", (CPU,)),
        ([TENSORRT, CUDA, CPU], "cuda", (CUDA, CPU)),
    ],
)
def test_providers(available: list[str], device: str, expected: tuple[str, ...]) -> None:
    assert tuple(name for name, _ in choose_providers(available, device)) == expected


def test_tensorrt_comes_first_where_it_is_asked_for_and_there() -> None:
    asked = {"trt_engine_cache_enable": "1"}
    first, *others = choose_providers([TENSORRT, CUDA, CPU], "cuda:1", asked)
    assert first == (TENSORRT, {"device_id": "1", **asked})
    assert others == list(choose_providers([CUDA, CPU], "cuda:1", asked))
    assert choose_providers([TENSORRT, CUDA, CPU], "cpu", asked) == ((CPU, {}),)


def test_the_second_gpu_is_not_the_first() -> None:
    numbers = [choose_providers([CUDA], device)[0][1]["device_id"] for device in ("cuda", "cuda:0", "cuda:1")]
    assert numbers == ["0", "0", "1"]


@pytest.mark.parametrize("task", [Task.DETECTION, Task.SEGMENTATION, Task.STYLE])
def test_a_network_that_is_wrong_at_one_batch_size_fails_the_gate(task: Task) -> None:
    right = torch_network(module(task), task)
    images = np.random.default_rng(2).random((16, 3, 32, 32), np.float32)

    def wrong_in_pairs(part: np.ndarray) -> dict[str, np.ndarray]:
        return dict(right(1 - part if len(part) == 2 else part))

    assert compare(task, right, right, images).agreement == 1.0
    wrong = compare(task, right, wrong_in_pairs, images)
    assert wrong.agreement < 0.99
    assert not wrong.passes


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.DETECTION, Task.STYLE])
def test_nan_fails_the_gate(task: Task) -> None:
    right = torch_network(module(task), task)

    def broken(part: np.ndarray) -> dict[str, np.ndarray]:
        return {k: np.full_like(v, np.nan) if v.dtype == np.float32 else v for k, v in right(part).items()}

    parity = compare(task, right, broken, np.random.default_rng(3).random((4, 3, 32, 32), np.float32))
    assert parity.agreement == 0.0
    assert not parity.passes


def test_a_classifier_that_mixes_up_the_rows_of_a_batch_fails_the_gate() -> None:
    def mean_colour(images: np.ndarray) -> dict[str, np.ndarray]:
        return {"probabilities": images.mean(axis=(2, 3))}

    images = np.random.default_rng(4).random((16, 3, 1, 1), np.float32)
    parity = compare(Task.CLASSIFICATION, mean_colour, lambda part: mean_colour(part[::-1]), images)
    assert parity.agreement < 0.9
    assert not parity.passes


def _found(*scores: float) -> dict[str, np.ndarray]:
    count = len(scores)
    boxes = np.zeros((1, 5, 4), np.float32)
    for place in range(count):
        boxes[0, place] = [20 * place, 0, 20 * place + 10, 10]
    padded = np.array([[*scores, *[0.0] * (5 - count)]], np.float32)
    classes = np.array([[0] * count + [-1] * (5 - count)], np.int64)
    return {"boxes": boxes, "scores": padded, "classes": classes, "accepted": padded > 0.5}


def test_a_box_that_is_missing_disagrees_unless_it_ties_with_the_last() -> None:
    image = np.zeros((1, 3, 8, 8), np.float32)

    def agreement(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
        return compare(Task.DETECTION, lambda _: ours, lambda _: theirs, image, (1,)).agreement

    assert agreement(_found(), _found()) == 1.0
    assert agreement(_found(0.9, 0.2), _found(0.9)) == 1.0
    shifted = _found(0.9, 0.8, 0.7, 0.1)
    shifted["boxes"][0, 1] += 2
    assert agreement(_found(0.9, 0.8, 0.7, 0.1), shifted) == pytest.approx(6 / 8)
    other = _found(0.9, 0.8, 0.7, 0.1)
    other["classes"][0, 0] = 1
    assert agreement(_found(0.9, 0.8, 0.7, 0.1), other) == pytest.approx(6 / 8)


def test_nothing_outside_vision_torch_imports_torch() -> None:
    names = (
        "specs", "images", "archives", "datasets", "snapshots", "metrics", "catalogue", "report", "contracts",
        "onnx.session", "onnx.parity", "onnx.answers", "onnx.quantization",
    )  # fmt: skip
    imports = "; ".join(f"import enxerto.vision.{name}" for name in names)
    subprocess.run([sys.executable, "-c", f"import sys; {imports}; assert 'torch' not in sys.modules"], check=True)
