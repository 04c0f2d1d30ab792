"""Where the class folders of a data set are: in its root, or in folders named after splits."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from enxerto.vision.datasets.tree import SPLIT_FOLDERS, Tree, split_named, suffix
from enxerto.vision.specs import Split

_ANNOTATIONS: Final = (".json", ".yaml", ".yml", ".xml", ".txt", ".csv")
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class ClassLayout:
    """Which folders are classes.

    Attributes:
        classes: names of class folders to their paths and the splits of those.
        filled: names of those in which there is something, in order.
        left_out: folders of the root that are neither splits nor classes, and why.
        doubt: why splits cannot be told from classes, whereupon every folder of the root is in `classes`; else empty.
    """

    classes: Mapping[str, list[tuple[Split | None, str]]]
    filled: tuple[str, ...]
    left_out: Mapping[str, str]
    doubt: str


def class_layout(tree: Tree) -> ClassLayout:
    """Take folders for splits when one is named after training and holds folders, and another is of another split.

    All others are left out then. A class may have the name of a split when it holds its pictures itself and no other
    folder has such a name: beside one another, they are splits or in doubt.
    """
    content = tree.images or [path for path in tree.files if suffix(path) not in _ANNOTATIONS]
    homes = {posixpath.dirname(path) for path in content} - {""}
    filled = {home.partition("/")[0] for home in homes}
    nested = {home.partition("/")[0] for home in homes if "/" in home}
    named = {folder: split for folder in tree.children(".") if (split := split_named(folder)) is not None}
    # `train_station` with pictures in it is a class; `seg_train` with folders in it is a split.
    splits = {folder: split for folder, split in named.items() if folder in nested or folder.lower() in SPLIT_FOLDERS}
    others = filled - splits.keys()
    several = len(set(splits.values())) > 1
    trains = any(split is Split.TRAIN and folder in nested for folder, split in splits.items())
    if trains and (several or not others):
        parents = {_innermost(tree, folder, homes): split for folder, split in splits.items() if folder in nested}
        left_out = dict.fromkeys(others, "lies beside folders that are named after splits")
        left_out |= dict.fromkeys((filled & splits.keys()) - nested, "holds no class folders")
        return _layout(tree, parents, homes, left_out, "")
    doubt = ""
    if several or splits.keys() & nested:
        doubt = (
            f"cannot tell splits from classes, because of {_listed(splits)}: splits are train, and val or test, each "
            "with class folders in it; a class may have such a name when no other folder has and its pictures lie "
            "directly in it"
        )
    return _layout(tree, {".": None}, homes, {}, doubt)


def _innermost(tree: Tree, folder: str, homes: set[str]) -> str:
    """Step from `seg_train` into a lone `seg_train` in it, as archives of archives have."""
    while folder not in homes:
        inner = tree.children(folder)
        if len(inner) != 1 or split_named(posixpath.basename(inner[0])) is not split_named(posixpath.basename(folder)):
            break
        (folder,) = inner
    return folder


def _layout(
    tree: Tree, parents: Mapping[str, Split | None], homes: set[str], left_out: Mapping[str, str], doubt: str
) -> ClassLayout:
    classes: dict[str, list[tuple[Split | None, str]]] = {}
    for parent, split in parents.items():
        for folder in tree.children(parent):
            classes.setdefault(posixpath.basename(folder), []).append((split, folder))
    used = {above for home in homes for above in ancestry(home)}
    filled = sorted(name for name, folders in classes.items() if any(folder in used for _, folder in folders))
    return ClassLayout(classes, tuple(filled), left_out, doubt)


def ancestry(path: str) -> list[str]:
    """The path and every folder above it, but for the root; the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = len(known) - _MOST_NAMED
    return ", ".join(known[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
