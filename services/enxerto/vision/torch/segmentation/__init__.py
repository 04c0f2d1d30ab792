"""Semantic segmentation: a class for every pixel."""

from enxerto.vision.torch.segmentation.recipe import SegmentationRecipe

__all__ = ["SegmentationRecipe"]
