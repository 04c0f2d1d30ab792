"""Encoded images to pixels, the same way in training and in serving."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, UnidentifiedImageError

from enxerto.vision.geometry import Placement, place
from enxerto.vision.specs import LETTERBOX_GREY, PreprocessSpec, Resize

# PIL's limit is process-wide and only warns below twice its value; `_refuse_large` is per call and exact.
Image.MAX_IMAGE_PIXELS = None

UInt8Image = npt.NDArray[np.uint8]
Float32Images = npt.NDArray[np.float32]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP")
EXTENSIONS: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
}

_BMP_HEADERS: Final = tuple(struct.pack("<I", size) for size in (40, 52, 56, 64, 108, 124))
_ORIENTATION_TAG: Final = 0x0112
_UNDO_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UPRIGHT: Final = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM)
_FILTERS: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class ImageError(ValueError):
    """An encoded image that cannot be used; each subclass has a stable `reason`, the message is for people.

    A fact about bytes: only who asked for them knows which field or file to name to a caller.
    """

    reason: ClassVar[str] = "INVALID_IMAGE"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class EmptyImageError(ImageError):
    """No bytes."""

    reason = "EMPTY_IMAGE"


class ImageTooLargeError(ImageError):
    """More bytes, or more pixels declared in the header, than the limits allow."""

    reason = "IMAGE_TOO_LARGE"


class UnsupportedImageError(ImageError):
    """Neither JPEG, PNG, WebP nor BMP."""

    reason = "UNSUPPORTED_IMAGE_FORMAT"


class CorruptImageError(ImageError):
    """Damaged bytes."""

    reason = "CORRUPT_IMAGE"


class TruncatedImageError(CorruptImageError):
    """The bytes end before the picture does."""

    reason = "TRUNCATED_IMAGE"


class AnimatedImageError(ImageError):
    """Several frames, of which none is *the* picture."""

    reason = "ANIMATED_IMAGE"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a single image may cost.

    Attributes:
        size_bytes: of the encoded image.
        pixels: width x height that its header declares.
    """

    size_bytes: int = 64 * 1024 * 1024
    pixels: int = 50_000_000


DEFAULT_LIMITS: Final = ImageLimits()


def sniff(data: bytes) -> str | None:
    """One of `FORMATS` by the first bytes, or None."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are weak evidence, so the reserved words and the size of the header must fit as well.
    if data[:2] == b"BM" and (len(data) < 18 or data[14:18] in (b"\x0c\0\0\0", *_BMP_HEADERS)):
        return "BMP"
    return None


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """An upright RGB image at full resolution.

    JPEG, PNG, WebP and BMP, by content. Transparency is composited over white, 16 bits are scaled to 8, CMYK is
    converted, EXIF orientation is applied.

    Raises:
        ImageError: the image is empty, too large, animated, damaged, or of another format.
    """
    return _decode(data, limits, at_least=None)[0]


def load(data: bytes, spec: PreprocessSpec, limits: ImageLimits = DEFAULT_LIMITS) -> UInt8Image:
    """Decode and preprocess: (height, width, 3), uint8, RGB.

    A JPEG much larger than the input is decoded at 1/2, 1/4 or 1/8 of its size, never below twice the size that it is
    then resampled to.

    Raises:
        ImageError: as `decode`.
    """
    return load_placed(data, spec, limits)[0]


def load_placed(
    data: bytes, spec: PreprocessSpec, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[UInt8Image, Placement]:
    """As `load`, and where the picture's pixels went; the placement is of the picture at full size.

    Raises:
        ImageError: as `decode`.
    """
    image, (width, height) = _decode(data, limits, at_least=2 * max(_resized(spec)))
    return preprocess(image, spec), place(spec, width, height)


def preprocess(image: Image.Image, spec: PreprocessSpec) -> UInt8Image:
    """Bring an upright picture to the input's size as `spec.resize` says: (height, width, 3), uint8, RGB.

    Only what is kept is resampled, so a very long and thin image costs no more than a square one.
    """
    placed = place(spec, image.width, image.height)
    resample = _FILTERS[spec.interpolation]
    if spec.resize is not Resize.CENTER_CROP:
        left, top, right, bottom = placed.inner
        inner = image.resize((right - left, bottom - top), resample)
        if (right - left, bottom - top) == (placed.input_width, placed.input_height):
            return np.asarray(inner, dtype=np.uint8)
        canvas = np.full((placed.input_height, placed.input_width, 3), LETTERBOX_GREY, np.uint8)
        canvas[top:bottom, left:right] = np.asarray(inner)
        return canvas
    crop_width = min(spec.width / placed.scale_x, float(image.width))
    crop_height = min(spec.height / placed.scale_y, float(image.height))
    left_edge = (image.width - crop_width) / 2
    top_edge = (image.height - crop_height) / 2
    box = (left_edge, top_edge, min(left_edge + crop_width, image.width), min(top_edge + crop_height, image.height))
    return np.asarray(image.resize((spec.width, spec.height), resample, box=box), dtype=np.uint8)


def to_batch(images: Sequence[UInt8Image]) -> Float32Images:
    """Stack (H, W, 3) uint8 images into (N, 3, H, W), float32, RGB in [0, 1]."""
    stacked = np.stack(images).transpose(0, 3, 1, 2)
    batch = np.empty(stacked.shape, dtype=np.float32)
    np.multiply(stacked, np.float32(1 / 255), out=batch, dtype=np.float32)
    return batch


def _resized(spec: PreprocessSpec) -> tuple[float, float]:
    return spec.width / spec.crop_fraction, spec.height / spec.crop_fraction


def _decode(data: bytes, limits: ImageLimits, at_least: float | None) -> tuple[Image.Image, tuple[int, int]]:
    """The upright picture, perhaps smaller than it is, and its full width and height."""
    if not data:
        raise EmptyImageError("the image has no bytes")
    if len(data) > limits.size_bytes:
        raise ImageTooLargeError(f"the image has {len(data)} bytes, the limit is {limits.size_bytes}")
    kind = sniff(data)
    if kind is None:
        raise UnsupportedImageError(f"not one of {', '.join(FORMATS)}")
    if kind == "WEBP":
        _check_webp(data, limits)
    try:
        # PIL hands out one image per call and nothing below is shared between threads.
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _refuse_large(image.width, image.height, limits)
            # A phone's MPO file is a JPEG followed by a depth map or preview: its first picture is the photo.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                raise AnimatedImageError(f"the {kind} has several frames; send a single picture")
            width, height = image.size
            if at_least is not None and kind == "JPEG":
                image.draft(None, (int(at_least + 1), int(at_least + 1)))
            image.load()
            orientation = _orientation(image)
            upright = _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise CorruptImageError(f"the {kind} header is damaged") from error
    except Exception as error:  # PIL's plugins have no error type of their own: anything comes out of damaged bytes
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise TruncatedImageError(f"the {kind} ends too early") from error
        raise CorruptImageError(f"the {kind} is damaged: {error}") from error
    transpose = _UNDO_ORIENTATION.get(orientation)
    if transpose is None:
        return upright, (width, height)
    turned = transpose not in _UPRIGHT
    return upright.transpose(transpose), (height, width) if turned else (width, height)


def _refuse_large(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise CorruptImageError(f"the header declares {width} x {height} pixels")
    if width * height > limits.pixels:
        raise ImageTooLargeError(f"the header declares {width} x {height} pixels, the limit is {limits.pixels} in all")


def _check_webp(data: bytes, limits: ImageLimits) -> None:
    """Size and length from the header, because PIL allocates the whole canvas when it opens a WebP."""
    (declared,) = struct.unpack_from("<I", data, 4) if len(data) >= 8 else (0,)
    if len(data) < 30 or declared + 8 > len(data):
        raise TruncatedImageError("the WEBP ends too early")
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
    elif chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif chunk == b"VP8 ":
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    else:
        raise CorruptImageError("the WEBP header is damaged")
    _refuse_large(width, height, limits)


def _orientation(image: Image.Image) -> int:
    # A damaged EXIF block says nothing about the pixels, which are whole.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION_TAG)
        if isinstance(orientation, int):
            return orientation
    return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        return _scale_16_bits(image)
    if image.mode == "CMYK":
        # PIL inverts every CMYK JPEG, as Adobe writes them; without Adobe's marker the inks are stored as they are.
        inks = image if "adobe" in image.info else ImageChops.invert(image)
        return inks.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scale_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = ((np.minimum(values, 65_535) * 255 + 32_767) // 65_535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
