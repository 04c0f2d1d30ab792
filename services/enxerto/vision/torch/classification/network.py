"""The grafted network: normalisation, backbone and head in one module; and what is served of it."""

from __future__ import annotations

import copy
from typing import Final, cast

import torch
from torch import nn

from enxerto.vision.finetuning import HeadSpec
from enxerto.vision.specs import PreprocessSpec
from enxerto.vision.torch.base_models import StagedBackbone


class ClassifierHead(nn.Module):
    """A classifier on centred features of unit size: linear, or with one hidden layer.

    That makes one learning rate fit every backbone. All features share one scale: dividing each by its own deviation
    was worse with pretrained weights in every case measured (digits, 50 to 400 images: 3 to 12 points), because it
    blows up the features that say little. Without a hidden layer all of it folds into a single layer for export.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, feature_dim: int, classes: int, spec: HeadSpec | None = None) -> None:
        super().__init__()
        how = spec or HeadSpec()
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("scale", torch.ones(()))
        self.dropout = nn.Dropout(how.dropout)
        self.hidden: nn.Module = nn.Identity()
        if how.hidden_units:
            self.hidden = nn.Sequential(nn.Linear(feature_dim, how.hidden_units), nn.ReLU(), nn.Dropout(how.dropout))
        self.linear = nn.Linear(how.hidden_units or feature_dim, classes)
        # From zero the first answer is uniform, whatever the features' size.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def calibrate(self, features: torch.Tensor) -> None:
        """Take the mean of each feature and the common scale from (N, D) training features."""
        mean = features.mean(dim=0, dtype=torch.float64)
        # In parts: a copy in float64 of all features would be twice as large as they are.
        squares = sum((((part.double() - mean) ** 2).sum() for part in torch.split(features, 4096)), mean.new_zeros(()))
        variance = squares / max(1, features.numel())
        self.mean.copy_(mean)
        self.scale.copy_(variance.sqrt().clamp_min(1e-12).reciprocal())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) features to (N, classes) logits."""
        return cast(torch.Tensor, self.linear(self.hidden(self.dropout((features - self.mean) * self.scale))))

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """With the same output in eval mode, and fewer steps."""
        first = self.linear if isinstance(self.hidden, nn.Identity) else cast(nn.Linear, self.hidden[0])  # type: ignore[index]
        linear = nn.Linear(first.in_features, first.out_features)
        weight = first.weight.double() * self.scale.double()
        linear.weight.copy_(weight)
        linear.bias.copy_(first.bias.double() - weight @ self.mean.double())
        if first is self.linear:
            return linear
        return nn.Sequential(linear, nn.ReLU(), copy.deepcopy(self.linear))


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


class ServedClassifier(nn.Module):
    """What is exported: (N, 3, H, W) images in [0, 1] to (N, classes) probabilities and (N, D) embeddings.

    Args:
        network: copied, to the CPU.
        temperature: that the logits are divided by.
    """

    gives_optional: Final = True

    def __init__(self, network: GraftedNetwork, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to("cpu").to(memory_format=torch.contiguous_format).eval()
        if isinstance(network.head, ClassifierHead):
            self.network.head = cast(ClassifierHead, self.network.head).folded()
        last = self.network.head[-1] if isinstance(self.network.head, nn.Sequential) else self.network.head
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.div_(temperature)
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, classes) probabilities, and (N, D) features of the backbone as they go into the head."""
        features = self.network.features(images)
        return self.network.head(features).softmax(dim=1), features
