"""One row of a shard for each sample, and what of a row its digest takes in."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image

from enxerto.kernel.errors import DataLossError
from enxerto.vision.datasets.samples import Annotation, Box, StoredSample
from enxerto.vision.datasets.scans import Mask
from enxerto.vision.snapshots.manifest import canonical
from enxerto.vision.specs import Split

_BOX: Final = pa.struct(
    [
        pa.field("label", pa.int32(), nullable=False),
        pa.field("x_min", pa.float64(), nullable=False),
        pa.field("y_min", pa.float64(), nullable=False),
        pa.field("x_max", pa.float64(), nullable=False),
        pa.field("y_max", pa.float64(), nullable=False),
        pa.field("crowd", pa.bool_(), nullable=False),
    ]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("boxes", pa.list_(_BOX)),
        pa.field("mask", pa.binary()),
        pa.field("image", pa.binary(), nullable=False),
    ]
)


def to_row(sample: StoredSample) -> dict[str, Any]:
    """A sample as `SCHEMA` has it."""
    known = sample.annotation
    boxes = [
        {
            "label": box.label,
            "x_min": box.x_min,
            "y_min": box.y_min,
            "x_max": box.x_max,
            "y_max": box.y_max,
            "crowd": box.crowd,
        }
        for box in known.boxes
    ]
    return {
        "path": sample.path,
        "split": sample.split.value,
        "sha256": hashlib.sha256(sample.data).hexdigest(),
        "width": sample.width,
        "height": sample.height,
        "label": known.label,
        # None and no boxes are the same to whoever reads: the picture is background.
        "boxes": boxes or None,
        "mask": known.mask,
        "image": sample.data,
    }


def from_row(row: dict[str, Any]) -> StoredSample:
    """The reverse of `to_row`.

    Raises:
        DataLossError: the image is not the one that was stored.
    """
    if hashlib.sha256(row["image"]).hexdigest() != row["sha256"]:
        raise DataLossError(f"image {row['path']!r} is not the one that was stored")
    annotation = Annotation(row["label"], tuple(Box(**box) for box in row["boxes"] or ()), row["mask"])
    return StoredSample(row["path"], Split(row["split"]), row["width"], row["height"], row["image"], annotation)


def row_digest(row: dict[str, Any]) -> bytes:
    """sha256 of a row's meaning: image and mask count by their content."""
    content = {key: value for key, value in row.items() if key not in ("image", "mask")}
    if row["mask"] is not None:
        # Of the pixels: another version of the encoder may make another file of the same mask.
        with Image.open(io.BytesIO(row["mask"]), formats=("PNG",)) as image:
            pixels = np.asarray(image)
        content["mask_sha256"] = hashlib.sha256(pixels.tobytes()).hexdigest()
    return hashlib.sha256(canonical(content)).digest()


def encode_mask(mask: Mask) -> bytes:
    """PNG of one channel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()
