"""Which recipe trains a task. A recipe's libraries are imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from enxerto.vision.specs import Task
from enxerto.vision.torch.recipe import Recipe

_RECIPES: Final = {
    Task.CLASSIFICATION: ("classification", "ClassificationRecipe"),
    Task.DETECTION: ("detection", "DetectionRecipe"),
    Task.SEGMENTATION: ("segmentation", "SegmentationRecipe"),
    Task.STYLE: ("style", "StyleRecipe"),
}


def get_recipe(task: Task) -> Recipe:
    """How a task is trained and measured."""
    package, name = _RECIPES[task]
    return cast(Recipe, getattr(import_module(f"enxerto.vision.torch.{package}.recipe"), name)())
