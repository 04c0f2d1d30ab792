import contextlib
import io
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from enxerto.vision import images
from enxerto.vision.images import (
    AnimatedImageError,
    CorruptImageError,
    EmptyImageError,
    ImageError,
    ImageLimits,
    ImageTooLargeError,
    TruncatedImageError,
    UnsupportedImageError,
    decode,
    load,
    preprocess,
    to_batch,
)
from enxerto.vision.specs import PreprocessSpec

SPEC = PreprocessSpec(32, 32, 0.875, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def photo(width: int = 64, height: int = 48) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // max(width - 1, 1), rows * 255 // max(height - 1, 1), (rows + columns) % 256]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_keeps_its_colours(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    flat = Image.new("RGB", (20, 10), (200, 30, 60))
    decoded = pixels(encode(flat, kind, **options))
    assert decoded.shape == (10, 20, 3)
    assert np.abs(decoded.astype(int) - (200, 30, 60)).max() <= 3


def test_grayscale_becomes_equal_channels() -> None:
    assert (pixels(encode(Image.new("L", (4, 4), 77))) == 77).all()
    assert (pixels(encode(Image.new("1", (4, 4), 1))) == 255).all()


def test_a_palette_becomes_its_colours_and_its_transparency_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert pixels(encode(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert pixels(encode(image, transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_is_converted_with_and_without_adobes_marker() -> None:
    cyan = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95)
    assert np.abs(pixels(cyan).astype(int) - (0, 255, 255)).max() <= 4
    marker = cyan.index(b"\xff\xee")
    (length,) = struct.unpack(">H", cyan[marker + 2 : marker + 4])
    plain = cyan[:marker] + cyan[marker + 2 + length :]
    # The stored inks are inverted, so that without the marker they are the opposite: magenta, yellow and black full.
    assert np.abs(pixels(plain).astype(int) - (0, 0, 0)).max() <= 4


def test_16_bits_are_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)
    assert pixels(encode(Image.fromarray(values)))[0, :, 0].tolist() == [0, 100, 255]


def test_16_bit_rgb_is_scaled() -> None:
    row = b"\0" + struct.pack(">3H", 0, 257 * 100, 65_535)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert pixels(data).tolist() == [[[0, 100, 255]]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
    ],
)
def test_transparency_is_composited_over_white(mode: str, colour: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(pixels(encode(Image.new(mode, (3, 3), colour)))[1, 1]) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_single_pixel_works(kind: str) -> None:
    data = encode(Image.new("RGB", (1, 1), (9, 9, 9)), kind)
    assert pixels(data).shape == (1, 1, 3)
    assert load(data, SPEC).shape == (32, 32, 3)
    assert np.ptp(load(data, SPEC)) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[8:, 24:] = (0, 0, 255)
    # How a camera stores the upright picture for each value of the tag (EXIF 2.3, section 4.6.4 A).
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    assert (pixels(encode(image, "PNG", exif=exif)) == upright).all()
    jpeg = pixels(encode(image, "JPEG", exif=exif, quality=100, subsampling=0)).astype(int)
    assert np.abs(jpeg - upright).max() <= 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_refuse_the_picture() -> None:
    data = encode(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert pixels(data).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(AnimatedImageError):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(kind: str, keep: float) -> None:
    rng = np.random.default_rng(0)
    data = encode(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(CorruptImageError) as error:
        decode(data[: int(len(data) * keep)])
    if keep == 0.9:
        assert isinstance(error.value, TruncatedImageError)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_garbage_after_a_good_start_is_refused_or_decoded_but_never_anything_else(kind: str) -> None:
    data = bytearray(encode(photo(), kind))
    rng = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            damaged[position] = int(rng.integers(0, 256))
        with contextlib.suppress(ImageError):
            assert decode(bytes(damaged), ImageLimits(pixels=1_000_000)).mode == "RGB"


@pytest.mark.parametrize(
    "data", [b"GIF89a" + b"\0" * 40, b"II*\0" + b"\0" * 40, b"hello", b"BMX", b"RIFF0000WAVE", b"\0"]
)
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as error:
        decode(data)
    assert isinstance(error.value, UnsupportedImageError | CorruptImageError)


def test_gif_and_tiff_are_unsupported() -> None:
    for kind in ("GIF", "TIFF"):
        with pytest.raises(UnsupportedImageError):
            decode(encode(Image.new("RGB", (4, 4)), kind))


def test_no_bytes_are_refused() -> None:
    with pytest.raises(EmptyImageError):
        decode(b"")


def test_60000_x_60000_is_refused_from_the_header_alone() -> None:
    with pytest.raises(ImageTooLargeError, match="60000 x 60000"):
        decode(png_header(60_000, 60_000) + b"\0\0\0\x10IDAT")
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *[0] * 6)
    with pytest.raises(ImageTooLargeError):
        decode(bmp)


def test_a_huge_webp_canvas_is_refused_before_it_is_allocated() -> None:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16_382).to_bytes(3, "little") * 2
    with pytest.raises(ImageTooLargeError, match="16383 x 16383"):
        decode(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_limits_are_per_call() -> None:
    data = encode(photo(100, 100))
    with pytest.raises(ImageTooLargeError):
        decode(data, ImageLimits(pixels=9_999))
    with pytest.raises(ImageTooLargeError):
        decode(data, ImageLimits(size_bytes=len(data) - 1))
    assert decode(data, ImageLimits(pixels=10_000, size_bytes=len(data))).size == (100, 100)


def test_errors_survive_another_process() -> None:
    error = pickle.loads(pickle.dumps(AnimatedImageError("several frames")))
    assert (type(error), error.reason, str(error)) == (AnimatedImageError, "ANIMATED_IMAGE", "several frames")


def test_preprocess_crops_the_centre() -> None:
    wide = np.zeros((100, 300, 3), dtype=np.uint8)
    wide[:, 100:200] = 255
    spec = PreprocessSpec(10, 10, 1.0, "bilinear", SPEC.mean, SPEC.std)
    result = preprocess(Image.fromarray(wide), spec)
    # The filter of the outermost columns reaches over the edge of the crop, as it does when resizing comes first.
    assert (result[:, 1:-1] == 255).all()
    assert (result > 200).all()


def test_preprocess_equals_resizing_and_then_cropping() -> None:
    image = photo(400, 300)
    resized = image.resize((round(400 * 256 / 300), 256), Image.Resampling.BILINEAR)
    left = (resized.width - 224) // 2
    reference = np.asarray(resized.crop((left, 16, left + 224, 240))).astype(int)
    spec = PreprocessSpec(224, 224, 0.875, "bilinear", SPEC.mean, SPEC.std)
    assert np.abs(preprocess(image, spec) - reference)[..., :2].mean() < 1


def test_a_very_thin_image_costs_nothing() -> None:
    assert load(encode(Image.new("RGB", (1, 60_000), (5, 6, 7))), SPEC)[0, 0].tolist() == [5, 6, 7]


def test_reduced_jpeg_decoding_gives_the_same_picture() -> None:
    data = encode(photo(2000, 1500).convert("L").convert("RGB"), "JPEG", quality=95)
    full = preprocess(decode(data), SPEC).astype(int)
    assert np.abs(load(data, SPEC) - full).mean() < 2


def test_batches_are_float_channels_first_in_the_unit_range() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 1] = (255, 51, 0)
    batch = to_batch([image, image])
    assert batch.shape == (2, 3, 2, 3)
    assert batch.dtype == np.float32
    assert batch[1, :, 0, 1].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert batch.flags.c_contiguous


def test_threads_decode_independently() -> None:
    encoded = [encode(Image.new("RGB", (50, 50), (value, value, value))) for value in range(64)]
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(images.decode, encoded))
    assert [image.getpixel((25, 25)) for image in decoded] == [(value,) * 3 for value in range(64)]
