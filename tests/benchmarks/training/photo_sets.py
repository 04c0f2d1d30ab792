"""Class folders of real pictures, from packages that anyone can install: what the recipes are measured on.

    python tests/benchmarks/training/photo_sets.py FOLDER

- `stamps`: photographs of the Debian package tuxpaint-stamps-default.
- `clipart`: drawings of the Debian package openclipart-png.
- `emoji`: Noto emoji of the npm package emoji-datasource-google, by subcategory.
- `digits`: scikit-learn's scanned digits.

A set whose package cannot be fetched is left out with a word on stderr.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

MAX_SIDE = 256
MAX_PER_CLASS = 60
MAX_BYTES = 1_000_000

STAMPS = {
    "birds": "animals/birds",
    "mammals": "animals/mammals",
    "fish": "animals/fish",
    "insects": "animals/insects",
    "fruit": "food/fruit",
    "vegetables": "food/vegetables",
    "flowers": "plants/flowers",
    "roadsigns": "town/roadsigns",
    "clothes": "clothes",
    "tools": "household/tools",
    "christmas": "seasonal/christmas",
    "halloween": "seasonal/halloween",
}
CLIPART = {
    "fruit": "food/fruit",
    "desserts": "food/desserts",
    "beverages": "food/beverages",
    "mammals": "animals/mammals",
    "birds": "animals/birds",
    "bugs": "animals/bugs",
    "music": "recreation/music",
    "sports": "recreation/sports",
    "vehicles": "transportation/vehicles",
    "clothing": "people/clothing",
    "hardware": "computer/hardware",
    "roadsigns": "transportation/roadsigns",
}
EMOJI = [
    "animal-mammal",
    "animal-bird",
    "animal-marine",
    "animal-bug",
    "food-fruit",
    "food-vegetable",
    "food-prepared",
    "food-sweet",
    "clothing",
    "transport-ground",
    "music",
    "plant-flower",
    "sport",
    "tool",
    "place-building",
]


def main() -> int:
    """Make every set that can be made."""
    target = Path(sys.argv[1])
    for name, make in (("stamps", _stamps), ("clipart", _clipart), ("emoji", _emoji), ("digits", _digits)):
        if (target / name).is_dir():
            continue
        try:
            with tempfile.TemporaryDirectory() as scratch:
                pictures = make(Path(scratch))
                counts = _write(pictures, target / name)
        except (OSError, subprocess.CalledProcessError, ImportError) as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        print(name, sum(counts.values()), "images,", json.dumps(counts))
    return 0


def _debian(package: str, scratch: Path) -> Path:
    subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True)
    (archive,) = scratch.glob("*.deb")
    subprocess.run(["dpkg", "-x", archive, scratch / "x"], check=True)
    return scratch / "x"


def _below(root: Path, classes: dict[str, str]) -> Iterator[tuple[str, Image.Image]]:
    for name, folder in classes.items():
        for file in sorted((root / folder).rglob("*.png")):
            # Drawings among the photographs.
            if "cartoon" not in file.as_posix() and file.stat().st_size <= MAX_BYTES:
                yield name, Image.open(file)


def _stamps(scratch: Path) -> Iterator[tuple[str, Image.Image]]:
    return _below(_debian("tuxpaint-stamps-default", scratch) / "usr/share/tuxpaint/stamps", STAMPS)


def _clipart(scratch: Path) -> Iterator[tuple[str, Image.Image]]:
    return _below(_debian("openclipart-png", scratch) / "usr/share/openclipart/png", CLIPART)


def _emoji(scratch: Path) -> Iterator[tuple[str, Image.Image]]:
    pack = ["npm", "pack", "emoji-datasource-google@15.1.2", "--silent"]
    subprocess.run(pack, cwd=scratch, check=True, capture_output=True)
    (archive,) = scratch.glob("*.tgz")
    subprocess.run(["tar", "xzf", archive, "-C", scratch], check=True)
    for one in json.loads((scratch / "package/emoji.json").read_text()):
        if one["subcategory"] in EMOJI:
            yield one["subcategory"], Image.open(scratch / "package/img/google/64" / one["image"])


def _digits(_: Path) -> Iterator[tuple[str, Image.Image]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for pixels, label in zip(digits.images, digits.target, strict=True):
        yield str(label), Image.fromarray((255 - pixels * 255 / 16).astype("uint8")).resize((64, 64))


def _write(pictures: Iterator[tuple[str, Image.Image]], folder: Path) -> dict[str, int]:
    """On white, at most `MAX_SIDE` long, without copies; a class keeps those whose digests come first."""
    kept: dict[str, dict[str, Image.Image]] = {}
    seen: set[str] = set()
    for name, picture in pictures:
        rgba = picture.convert("RGBA")
        whole = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        whole.thumbnail((MAX_SIDE, MAX_SIDE))
        digest = hashlib.sha256(whole.tobytes()).hexdigest()
        if digest not in seen:
            seen.add(digest)
            kept.setdefault(name, {})[digest] = whole
    for name, ones in kept.items():
        (folder / name).mkdir(parents=True)
        for digest in sorted(ones)[:MAX_PER_CLASS]:
            ones[digest].save(folder / name / f"{digest[:12]}.png")
    return {name: min(len(ones), MAX_PER_CLASS) for name, ones in sorted(kept.items())}


if __name__ == "__main__":
    sys.exit(main())
