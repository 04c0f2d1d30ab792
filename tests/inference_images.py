"""Images of every odd kind, for tests of serving: those that are answered, and those that are refused."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _photo(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([rows * 6, columns * 5, rows * 0 + 90], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(_photo(), "JPEG", exif=exif)


def _turned_without_end() -> bytes:
    """An EXIF block whose orientation is the float infinity."""
    entry = struct.pack("<HHIf", 0x0112, 11, 1, float("inf"))
    exif = b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return encode(_photo(), "JPEG", exif=exif)


def _declares(width: int, height: int) -> bytes:
    """A PNG that is nothing but its header's claim."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


_SIXTEEN_BITS = Image.fromarray((np.arange(1200, dtype=np.uint16) * 50).reshape(30, 40))

GOOD: dict[str, bytes] = {
    "jpeg": encode(_photo(), "JPEG"),
    "png": encode(_photo(), "PNG"),
    "webp": encode(_photo(), "WEBP"),
    "bmp": encode(_photo(), "BMP"),
    "grayscale": encode(_photo("L"), "PNG"),
    "palette": encode(_photo("P"), "PNG"),
    "cmyk": encode(_photo("CMYK"), "JPEG"),
    "sixteen-bits": encode(_SIXTEEN_BITS, "PNG"),
    "rgba": encode(_photo("RGBA"), "PNG"),
    "one-pixel": encode(_photo(size=(1, 1)), "PNG"),
    "turned": _turned(),
    "turned-without-end": _turned_without_end(),
}

_JPEG = encode(_photo(size=(200, 200)), "JPEG", quality=95)
_FRAMES = [_photo(), _photo("L").convert("RGB")]

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "EMPTY_IMAGE"),
    "text": (b"this is no image", "UNSUPPORTED_IMAGE_FORMAT"),
    "corrupt": (b"\xff\xd8\xff" + b"\x01\x02\x03" * 50, "CORRUPT_IMAGE"),
    "truncated": (_JPEG[: len(_JPEG) // 2], "TRUNCATED_IMAGE"),
    "animated": (encode(_FRAMES[0], "WEBP", save_all=True, append_images=_FRAMES[1:]), "ANIMATED_IMAGE"),
    "bomb": (_declares(60_000, 60_000), "IMAGE_TOO_LARGE"),
}
