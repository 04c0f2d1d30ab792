"""How a split's pictures look in the style: as numbers and as pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image

from enxerto.kernel.errors import InvalidArgumentError, Violation
from enxerto.vision.datasets.samples import StoredSample
from enxerto.vision.images import ImageLimits, UInt8Image, load, to_batch
from enxerto.vision.report import Triptych, styles_figure
from enxerto.vision.specs import PreprocessSpec, Resize, Split
from enxerto.vision.torch.recipe import Evaluation, MeasuredMetric, Predict
from enxerto.vision.torch.style.gatys import Stylised
from enxerto.vision.torch.style.objective import Objective, loss_values
from enxerto.vision.torch.style.pictures import to_image
from enxerto.vision.torch.style.similarity import ssim

_INDEX: Final = "pictures.json"
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class StyledPicture:
    """A picture of the split in the style.

    Attributes:
        content: (H, W, 3), uint8, at the result's size.
        result: likewise.
        metrics: by name.
    """

    content: UInt8Image
    result: UInt8Image
    metrics: Mapping[str, float]


def answered(
    predict: Predict,
    samples: Iterator[StoredSample],
    preprocess: PreprocessSpec,
    objective: Objective,
    limits: ImageLimits,
) -> Iterator[StyledPicture]:
    """Answer one picture after the other, as serving does: they differ in size."""
    for sample in samples:
        content = load(sample.data, preprocess, limits)
        images = to_batch([content])
        pictures, contents = torch.from_numpy(predict(images)["pictures"]), torch.from_numpy(images)
        with torch.no_grad():
            losses = objective.measure(pictures, contents)
            values = loss_values(losses, objective.total(losses), ssim(pictures, contents).mean())
        yield StyledPicture(content, to_image(pictures[0]), values)


def write_pictures(pictures: Sequence[Stylised], folder: Path) -> tuple[Path, ...]:
    """Write `picture-0001.png` and so on, and `pictures.json`, which says what each is and what it measured."""
    files = []
    rows = []
    for number, one in enumerate(pictures, start=1):
        file = folder / f"picture-{number:04d}.png"
        file.write_bytes(one.png)
        files.append(file)
        rows.append({"file": file.name, "content": one.path, "split": one.split.value, "metrics": dict(one.metrics)})
    index = folder / _INDEX
    index.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    return (*files, index)


def written(
    files: Sequence[Path],
    samples: Iterable[StoredSample],
    split: Split,
    preprocess: PreprocessSpec,
    limits: ImageLimits,
) -> Iterator[StyledPicture]:
    """A split's pictures as `write_pictures` wrote them; `samples` are the split's contents."""
    by_name = {file.name: file for file in files}
    rows = {
        row["content"]: row
        for row in json.loads(by_name[_INDEX].read_text(encoding="utf-8"))
        if row["split"] == split.value
    }
    for sample in samples:
        row = rows.get(sample.path)
        if row is None:
            continue
        with Image.open(io.BytesIO(by_name[row["file"]].read_bytes()), formats=("PNG",)) as image:
            result = np.asarray(image)
        size = replace(preprocess, height=result.shape[0], width=result.shape[1], resize=Resize.STRETCH)
        yield StyledPicture(load(sample.data, size, limits), result, row["metrics"])


def evaluate_pictures(pictures: Iterator[StyledPicture], style: UInt8Image) -> Evaluation:
    """Means over the pictures; the score is minus the loss.

    Raises:
        InvalidArgumentError: there is no picture.
    """
    sums: dict[str, float] = {}
    count = 0
    shown: list[Triptych] = []
    for one in pictures:
        count += 1
        for name, value in one.metrics.items():
            sums[name] = sums.get(name, 0.0) + value
        if len(shown) < _SHOWN:
            shown.append(Triptych(one.content, style, one.result))
    if count == 0:
        raise InvalidArgumentError([Violation("dataset", "the split has no picture in the style")])
    means = {name: value / count for name, value in sums.items()}
    return Evaluation(
        score=-means["loss"],
        score_name="loss",
        metrics=tuple(MeasuredMetric(name, value) for name, value in means.items()),
        detail={**means, "pictures": count},
        headline={
            "loss": f"{means['loss']:.3f}",
            "content loss": f"{means['content_loss']:.3f}",
            "style loss": f"{means['style_loss']:.3f}",
            "SSIM to the content": f"{means['ssim']:.3f}",
        },
        figures=(styles_figure(shown),),
    )
