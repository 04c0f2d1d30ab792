"""Answers drawn into the picture that they are about."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from enxerto.client import Detection, Prediction, Segmentation, StylizedImage

if TYPE_CHECKING:
    from PIL.Image import Image

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart (Wong, Nature Methods 8, 2011).
_COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_MASK_SHARE = 0.55


class PillowMissingError(OSError):
    """The extra that draws is not installed."""


def draw(path: Path, answer: Prediction | Detection | Segmentation | StylizedImage) -> bytes:
    """A PNG of the picture, upright, with the answer drawn in; of a painting, the painting.

    Raises:
        PillowMissingError: Pillow is not installed.
    """
    if isinstance(answer, StylizedImage):
        return answer.content
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise PillowMissingError("drawing needs Pillow: pip install 'enxerto[client]'") from error
    with Image.open(path) as opened:
        # Answers are in the pixels of the picture as people see it.
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    if isinstance(answer, Detection):
        _draw_objects(picture, answer)
    elif isinstance(answer, Segmentation):
        picture = _tinted(picture, answer)
        _draw_lines(picture, [(one.label, _colour(one.index)) for one in answer.segments if one.index])
    else:
        lines = [f"{one.label} {100 * one.probability:.1f} %" for one in answer.categories]
        _draw_lines(picture, [(line, _colour(0)) for line in lines])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _colour(index: int) -> tuple[int, int, int]:
    return _COLOURS[index % len(_COLOURS)]


def _text_size(picture: "Image") -> int:
    return max(10, min(picture.size) // 30)


def _draw_objects(picture: "Image", answer: Detection) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    width = max(1, min(picture.size) // 200)
    size = _text_size(picture)
    # The surest object is drawn last and lies on top.
    for one in reversed(answer.objects):
        colour, box = _colour(one.index), one.box
        pen.rectangle((box.x_min, box.y_min, box.x_max, box.y_max), outline=colour, width=width)
        text = f"{one.label} {100 * one.score:.0f} %"
        top = box.y_min - size - 2 if box.y_min > size else box.y_min
        left, upper, right, lower = pen.textbbox((box.x_min, top), text, font_size=size)
        pen.rectangle((left - 1, upper - 1, right + 1, lower + 1), fill=colour)
        pen.text((box.x_min, top), text, fill=(0, 0, 0), font_size=size)


def _tinted(picture: "Image", answer: Segmentation) -> "Image":
    """Every class but the first, which is the background where a data set has one, in its colour."""
    from PIL import Image

    with Image.open(io.BytesIO(answer.png)) as opened:
        mask = opened.convert("L")
    palette = [0, 0, 0] * 256
    for index in range(1, 256):
        palette[3 * index : 3 * index + 3] = _colour(index)
    colours = mask.copy()
    colours.putpalette(palette)
    seen = mask.point([0, *[round(255 * _MASK_SHARE)] * 254, 0])
    return Image.composite(colours.convert("RGB"), picture, seen)


def _draw_lines(picture: "Image", lines: list[tuple[str, tuple[int, int, int]]]) -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    size = _text_size(picture)
    for number, (text, colour) in enumerate(lines):
        place = (4, 4 + number * (size + 4))
        left, upper, right, lower = pen.textbbox(place, text, font_size=size)
        pen.rectangle((left - 2, upper - 2, right + 2, lower + 2), fill=colour)
        pen.text(place, text, fill=(0, 0, 0), font_size=size)
