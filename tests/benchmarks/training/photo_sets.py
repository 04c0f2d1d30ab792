"""Class folders of real pictures, from packages that anyone can fetch: what small-data recipes are measured on.

    python tests/benchmarks/training/photo_sets.py [FOLDER]

makes one folder for each set, with a folder for each class:

    stamps     photographs of things, cut out (Debian's tuxpaint-stamps-default)
    clipart    drawings by many hands (Debian's openclipart-png)
    emoji      small pictograms (npm's emoji-datasource-google)
    digits     scanned digits (scikit-learn)

Nothing is installed and nothing outside of FOLDER is written. A set whose package cannot be fetched is left out, and
that is said.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

DEFAULT_FOLDER = Path("/tmp/photo-sets")
SIDE = 256
LEAST = 9
MOST = 60
"""Of a class; larger ones are drawn from with a fixed seed, so that no class drowns the others."""

_LARGEST = 20_000_000
"""Pixels; the few larger drawings take seconds and gigabytes each."""

# The folders that hold one kind of thing; others are as mixed as their names.
_CLIPART = (
    "animals/birds",
    "animals/bugs",
    "animals/mammals",
    "computer/hardware",
    "food/beverages",
    "food/desserts",
    "food/fruit",
    "people/clothing",
    "recreation/music",
    "recreation/sports",
    "transportation/roadsigns",
    "transportation/vehicles",
)

_EMOJI = frozenset(
    {"animal-bird", "animal-bug", "animal-mammal", "animal-marine", "clothing", "food-fruit", "food-prepared"}
    | {"food-sweet", "food-vegetable", "music", "place-building", "plant-flower", "sport", "tool", "transport-ground"}
)


class SetUnavailableError(RuntimeError):
    """The package of a set cannot be fetched here."""


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """One data set on disk.

    Attributes:
        name: of the set.
        folder: with a folder of pictures for each class.
        counts: pictures of each class.
    """

    name: str
    folder: Path
    counts: dict[str, int]


Pictures = Iterator[tuple[str, str, Image.Image]]
"""Class, file stem, picture."""


def make_sets(folder: Path = DEFAULT_FOLDER, names: tuple[str, ...] = (), *, cut_out: bool = False) -> list[PhotoSet]:
    """The sets of these names, all when empty; those that are there already are not made again.

    Pictures lie on white; with `cut_out` they keep their transparency, in a folder `NAME-cut-out`.
    """
    made = []
    for name, source in _SOURCES.items():
        if names and name not in names:
            continue
        target = folder / (f"{name}-cut-out" if cut_out else name)
        if not target.is_dir():
            try:
                _make(target, source, cut_out=cut_out)
            except SetUnavailableError as error:
                print(f"SKIPPED {name}: {error}", file=sys.stderr)
                continue
        counts = {one.name: sum(1 for _ in one.iterdir()) for one in sorted(target.iterdir())}
        made.append(PhotoSet(name, target, counts))
    return made


def _make(target: Path, source: Callable[[Path], Pictures], *, cut_out: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        whole = Path(scratch) / "set"
        for label, stem, read in source(Path(scratch)):
            picture = read if cut_out else _on_white(read)
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            file = whole / label / f"{stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
        # Renamed at the end, so that half a set is never taken for a whole one.
        whole.rename(target)


def _stamps(scratch: Path) -> Pictures:
    root = _debian("tuxpaint-stamps-default", scratch) / "usr/share/tuxpaint/stamps"
    classes: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(root.rglob("*.png")):
        kind = file.parent.relative_to(root).parts
        # Drawings and letters are no photographs; some photographs come a second time, mirrored.
        if "cartoon" not in kind and kind[0] != "symbols" and not file.stem.endswith(("_mirror", "_flip")):
            classes[(kind[1:] or kind)[0]].append(file)
    return _read(classes)


def _clipart(scratch: Path) -> Pictures:
    root = _debian("openclipart-png", scratch) / "usr/share/openclipart/png"
    return _read({Path(kind).name: sorted((root / kind).rglob("*.png")) for kind in _CLIPART})


def _emoji(scratch: Path) -> Pictures:
    name = "emoji-datasource-google"
    _run(["npm", "pack", "--silent", name], scratch)
    (packed,) = scratch.glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(scratch / name, filter="data")
    root = scratch / name / "package"
    classes: dict[str, list[Path]] = defaultdict(list)
    for entry in json.loads((root / "emoji.json").read_text()):
        file = root / "img/google/64" / entry["image"]
        if file.is_file() and entry["subcategory"] in _EMOJI:
            classes[entry["subcategory"]].append(file)
    return _read(classes)


def _digits(scratch: Path) -> Pictures:
    del scratch
    from sklearn.datasets import load_digits

    data = load_digits()
    for label in range(10):
        for index in np.flatnonzero(data.target == label)[:MOST]:
            dark = np.pad(255 - (data.images[index] * 255 / 16).astype(np.uint8), 2, constant_values=255)
            picture = Image.fromarray(dark).convert("RGB").resize((48, 48), Image.Resampling.BICUBIC)
            yield str(label), f"{index:04}", picture


def _read(classes: dict[str, list[Path]]) -> Pictures:
    for label, files in sorted(classes.items()):
        fitting = [file for file in files if _pixels(file) <= _LARGEST]
        if len(fitting) < LEAST:
            continue
        chosen = fitting if len(fitting) <= MOST else sorted(random.Random(0).sample(fitting, MOST))
        for index, file in enumerate(chosen):
            with Image.open(file) as opened:
                yield label, f"{index:04}-{file.stem}", opened.convert("RGBA")


def _on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _pixels(file: Path) -> int:
    # From the header: opening one that is too large is what is to be avoided.
    with file.open("rb") as opened:
        width, height = struct.unpack(">II", opened.read(24)[16:])
    return int(width * height)


def _debian(package: str, scratch: Path) -> Path:
    _run(["apt-get", "download", package], scratch)
    (archive,) = scratch.glob(f"{package}_*.deb")
    _run(["dpkg", "-x", archive.name, package], scratch)
    return scratch / package


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise SetUnavailableError(f"there is no {command[0]} here")
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600)
    except subprocess.CalledProcessError as error:
        text = (error.stderr or error.stdout or "").strip().splitlines()
        raise SetUnavailableError(f"{' '.join(command[:2])} failed: {text[-1] if text else error}") from error
    except subprocess.TimeoutExpired as error:
        raise SetUnavailableError(f"{' '.join(command[:2])} took longer than {error.timeout:.0f} s") from error


_SOURCES: dict[str, Callable[[Path], Pictures]] = {
    "stamps": _stamps,
    "clipart": _clipart,
    "emoji": _emoji,
    "digits": _digits,
}


if __name__ == "__main__":
    for one in make_sets(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER):
        print(f"{one.name}: {sum(one.counts.values())} pictures, {len(one.counts)} classes: {one.counts}")
