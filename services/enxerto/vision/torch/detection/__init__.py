"""Object detection: every family gives dense candidates, and one batched suppression serves them all."""

from enxerto.vision.torch.detection.recipe import DetectionRecipe

__all__ = ["DetectionRecipe"]
