"""The grafted network: normalisation, backbone and head in one module."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import StagedBackbone


class LinearHead(nn.Module):
    """A linear classifier on centred features of unit size.

    That makes one learning rate fit every backbone. All features share one scale: dividing each by its own deviation
    was worse with pretrained weights in every case measured (digits, 50 to 400 images: 3 to 12 points), because it
    blows up the features that say little. Both steps fold into a single layer for export.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(()))
        self.linear = nn.Linear(feature_dim, classes)
        # From zero the first answer is uniform, whatever the features' size.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def calibrate(self, features: torch.Tensor) -> None:
        """Take the mean of each feature and the common scale from (N, D) training features."""
        variance, mean = torch.var_mean(features.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(variance.mean().sqrt().clamp_min(1e-12).reciprocal())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) features to (N, classes) logits."""
        return cast(torch.Tensor, self.linear((features - self.mean) * self.scale))

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """One linear layer with the same output."""
        linear = nn.Linear(self.linear.in_features, self.linear.out_features)
        weight = self.linear.weight.double() * self.scale.double()
        linear.weight.copy_(weight)
        linear.bias.copy_(self.linear.bias.double() - weight @ self.mean.double())
        return linear


class GraftedNetwork(nn.Module):
    """(N, 3, H, W) float images in [0, 1] to (N, classes) logits."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: StagedBackbone, head: nn.Module, preprocess: PreprocessSpec) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float images in [0, 1] to (N, D) float32 features."""
        return self.backbone.features((images - self.mean) / self.std).float()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) float images in [0, 1] to (N, classes) logits."""
        return cast(torch.Tensor, self.head(self.features(images)))
