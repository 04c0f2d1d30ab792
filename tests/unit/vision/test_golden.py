"""Golden inputs: written at export, read where a version is served."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from enxerto.vision.onnx import golden as module
from enxerto.vision.onnx.golden import Golden, GoldenError, make_golden, read_golden, write_golden
from enxerto.vision.onnx.session import OnnxModel
from fakes.tiny_onnx import TinyDetector, TinyModel, TinyNegative, TinySegmenter


def made(tiny: TinyModel, side: int = 32) -> Golden:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 3, side, side)).astype(np.uint8)
    return make_golden(tiny.task, OnnxModel(tiny.data).run, pixels * np.float32(1 / 255))


@pytest.mark.parametrize("tiny", [TinyModel(size=32), TinyDetector(size=32), TinySegmenter(size=32), TinyNegative()])
def test_what_is_written_is_read_and_answered_the_same(tiny: TinyModel, tmp_path: Path) -> None:
    golden = made(tiny)
    write_golden(golden, tmp_path / "golden.npz")
    read = read_golden((tmp_path / "golden.npz").read_bytes(), tiny.task)
    np.testing.assert_array_equal(read.pixels, golden.pixels)
    assert len(read.pixels) == 4
    assert read.agreement(OnnxModel(tiny.data).run(read.images)) == 1.0


def test_another_network_is_told(tmp_path: Path) -> None:
    golden, other = made(TinyModel(1, size=32)), TinyModel(4, size=32)
    assert golden.agreement(OnnxModel(other.data).run(golden.images)) < golden.least
    fewer = OnnxModel(TinyModel(1, labels=("a", "b"), size=32).data).run(golden.images)
    assert golden.agreement(fewer) == 0.0
    near = {"probabilities": golden.answers["probabilities"].copy()}
    near["probabilities"] += 0.04
    assert golden.agreement(near) == 1.0
    near["probabilities"][0, 1] += 0.04
    assert golden.agreement(near) == 0.75
    assert golden.agreement({"probabilities": np.full((4, 4), np.nan, np.float32)}) == 0.0


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", bytes(2_000_000))
    return buffer.getvalue()


def compressed() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)).astype(np.uint8)
    np.savez_compressed(buffer, images=pixels, probabilities=np.zeros((2, 4), np.float32))
    return buffer.getvalue()


def marked(flags: int = 0, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive that says that its first file is encrypted, or compressed in some other way."""
    content = bytearray(compressed())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.index(signature) + offset
        content[start : start + 4] = flags.to_bytes(2, "little") + method.to_bytes(2, "little")
    return bytes(content)


def test_whatever_is_damaged_is_refused_as_a_file_that_cannot_be_read() -> None:
    content = compressed()
    whole, refused = read_golden(content, TinyModel.task), 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        try:
            read = read_golden(bytes(damaged), TinyModel.task)
        except GoldenError:
            refused += 1
            continue
        # Such as the archive's times, which nothing depends on.
        np.testing.assert_array_equal(read.pixels, whole.pixels)
        np.testing.assert_array_equal(read.answers["probabilities"], whole.answers["probabilities"])
    assert refused > len(content) / 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"no archive", id="no archive"),
        pytest.param(archive(images=np.zeros((1, 3, 4, 4), np.uint8)), id="no answers"),
        pytest.param(
            archive(images=np.zeros((1, 3, 4, 4), np.float32), probabilities=np.zeros((1, 4), np.float32)),
            id="images of floats",
        ),
        pytest.param(
            archive(images=np.zeros((0, 3, 4, 4), np.uint8), probabilities=np.zeros((0, 4), np.float32)),
            id="no images",
        ),
        pytest.param(
            archive(images=np.zeros((2, 3, 4, 4), np.uint8), probabilities=np.zeros((1, 4), np.float32)),
            id="fewer answers than images",
        ),
        pytest.param(
            archive(images=np.array([{}], dtype=object), probabilities=np.zeros((1, 4), np.float32)), id="a pickle"
        ),
        pytest.param(bomb(), id="a bomb"),
        pytest.param(
            archive(images=np.zeros((2, 3, 4, 4), np.uint8), probabilities=np.full((2, 4), "x")), id="answers of text"
        ),
        pytest.param(marked(flags=1), id="encrypted"),
        pytest.param(marked(method=99), id="compressed in an unknown way"),
    ],
)
def test_what_is_no_file_of_golden_inputs_is_refused(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GOLDEN_BYTES", 1_000_000)
    with pytest.raises(GoldenError):
        read_golden(content, TinyModel.task)
