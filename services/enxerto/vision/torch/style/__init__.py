"""A picture in another picture's style: a network that does it in one pass, or an optimisation of each picture."""

from enxerto.vision.torch.style.recipe import StyleRecipe

__all__ = ["StyleRecipe"]
