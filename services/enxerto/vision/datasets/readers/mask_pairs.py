"""Which mask is of which picture, by their names and folders."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from enxerto.vision.datasets.findings import Finding, error
from enxerto.vision.datasets.tree import SPLIT_FOLDERS, Tree, split_of, stem, suffix

_MASK_FOLDERS: Final = frozenset(
    {"masks", "mask", "segmentationclass", "segmentation", "labels", "annotations", "gt", "trimaps", "labelids"}
)
_IMAGE_FOLDERS: Final = frozenset({"images", "image", "imgs", "img", "jpegimages"})
_FOLDERS: Final = _MASK_FOLDERS | _IMAGE_FOLDERS
_MASK_SUFFIXES: Final = ("_mask", "-mask", "_label", "_labels", "_seg", "_gt", "_l")
_MOST_NAMED: Final = 10


@dataclass(slots=True)
class _Namesakes:
    """Files of one split that have the same name, but for a mask's ending."""

    pictures: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MaskPairs:
    """What belongs together.

    Attributes:
        masks: of pictures, by the pictures' paths in order.
        lonely: masks without a picture.
        bare: pictures without a mask.
        findings: about the files that may belong together in several ways.
    """

    masks: dict[str, str]
    lonely: list[str]
    bare: list[str]
    findings: list[Finding]


def pair_masks(tree: Tree) -> MaskPairs:
    """Pair files of a name whose folders correspond; what remains in doubt is an error."""
    groups: dict[tuple[str, str], _Namesakes] = defaultdict(_Namesakes)
    pictures, masks = [], []
    for path in tree.images:
        # Instances have one index for each object, which no class has.
        if "segmentationobject" in path.lower():
            continue
        group = groups[str(split_of(path)), _key(path)]
        if _is_mask(path):
            masks.append(path)
            group.masks.append(path)
        else:
            pictures.append(path)
            group.pictures.append(path)
    pairs: dict[str, str] = {}
    findings: list[Finding] = []
    settled: set[str] = set()
    for group in groups.values():
        for fitting in _fitting(group):
            settled.update(fitting.pictures, fitting.masks)
            found = _pairs(fitting)
            pairs.update(found)
            if not found:
                findings.append(_doubt(fitting))
    return MaskPairs(
        {path: pairs[path] for path in pictures if path in pairs},
        [path for path in masks if path not in settled],
        [path for path in pictures if path not in settled],
        findings,
    )


def _is_mask(path: str) -> bool:
    if suffix(path) not in (".png", ".bmp"):
        return False
    folders = {part.lower() for part in path.split("/")[:-1]}
    return bool(folders & _MASK_FOLDERS) or stem(path).lower().endswith(_MASK_SUFFIXES)


def _key(path: str) -> str:
    """What a picture and its mask have in common."""
    name = stem(path).lower()
    for ending in _MASK_SUFFIXES:
        if name.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _parts(path: str) -> list[str]:
    return posixpath.dirname(path).split("/")


def _mirrored(path: str) -> set[str]:
    """Its folder without `images` or `masks`, wherever in the path these are."""
    return {"/".join(part for part in _parts(path) if part.lower() not in _FOLDERS)}


def _mirrored_under_another_name(path: str) -> set[str]:
    """Likewise; of a path that has neither any one of its folders may be what `images` is elsewhere."""
    parts = _parts(path)
    if any(part.lower() in _FOLDERS for part in parts):
        return _mirrored(path)
    return {"/".join(parts[:position] + parts[position + 1 :]) for position in range(len(parts))}


def _below(path: str) -> set[str]:
    """Its folder below `images` or `masks`, whatever is above these; which split it is of is known already."""
    parts = _parts(path)
    first = max((at + 1 for at, part in enumerate(parts) if part.lower() in _FOLDERS), default=0)
    return {"/".join(part for part in parts[first:] if part.lower() not in SPLIT_FOLDERS)}


_VIEWS: Final[tuple[Callable[[str], set[str]], ...]] = (_mirrored, _mirrored_under_another_name, _below)


def _fitting(group: _Namesakes) -> list[_Namesakes]:
    """Those that belong together, by the first view of their folders that has any: looser ones would only guess."""
    if not group.pictures or not group.masks:
        return []
    for view in _VIEWS:
        if found := _meeting(group, view):
            return found
    # A mask of one folder is never of a picture in another; but either kind may lie in one heap.
    heaped = any("" in _below(path) for path in (*group.pictures, *group.masks))
    named_only = any(not {part.lower() for part in _parts(mask)} & _MASK_FOLDERS for mask in group.masks)
    return [group] if heaped or named_only else []


def _meeting(group: _Namesakes, view: Callable[[str], set[str]]) -> list[_Namesakes]:
    places: dict[str, _Namesakes] = defaultdict(_Namesakes)
    for path in group.pictures:
        for place in view(path):
            places[place].pictures.append(path)
    for path in group.masks:
        for place in view(path):
            places[place].masks.append(path)
    found = [place for place in places.values() if place.pictures and place.masks]
    times = Counter(path for place in found for path in (*place.pictures, *place.masks))
    if max(times.values(), default=0) > 1:
        # Of files that meet in several places no place says more than another.
        pictures = {path for place in found for path in place.pictures}
        masks = {path for place in found for path in place.masks}
        return [_Namesakes(sorted(pictures), sorted(masks))]
    return found


def _pairs(group: _Namesakes) -> dict[str, str]:
    """Pictures to masks; empty when it cannot be told which is whose."""
    if len(group.pictures) == len(group.masks) == 1:
        return {group.pictures[0]: group.masks[0]}
    masks = {stem(path): path for path in group.masks}
    same = {path: masks[stem(path)] for path in group.pictures if stem(path) in masks}
    return same if len(set(same.values())) == len(group.pictures) == len(group.masks) else {}


def _doubt(group: _Namesakes) -> Finding:
    message = f"{_listed(group.masks)} would fit {_listed(group.pictures)}; each picture needs one mask of its folder"
    return error(group.pictures[0], "AMBIGUOUS_MASK", message)


def _listed(paths: list[str]) -> str:
    more = len(paths) - _MOST_NAMED
    return ", ".join(paths[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
