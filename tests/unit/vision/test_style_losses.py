from pathlib import Path

import numpy as np
import pytest
import torch

from enxerto.vision.catalogue import get_facts
from enxerto.vision.finetuning import Weights
from enxerto.vision.torch.base_models import build_backbone
from enxerto.vision.torch.style.perception import LossNetwork, gram, total_variation
from enxerto.vision.torch.style.similarity import ssim
from enxerto.vision.torch.style.transformer import TransformerNetwork
from enxerto.vision.torch.weights import WeightsSources
from fakes.dense_jobs import tiny_encoder

SOURCES = WeightsSources(download=False, cache=Path("/nonexistent"))


def _network(name: str, weights: Weights = Weights.NONE) -> LossNetwork:
    torch.manual_seed(0)
    backbone, _ = build_backbone(name, weights, SOURCES)
    return LossNetwork(backbone, get_facts(name).preprocess)


def test_a_picture_has_its_own_content_and_style() -> None:
    network = _network(tiny_encoder())
    pictures = torch.rand(2, 3, 64, 64)
    maps = network.maps(pictures)
    same = network.losses(pictures, maps, network.grams(maps))
    assert float(same.content) == pytest.approx(0, abs=1e-9)
    assert float(same.style) == pytest.approx(0, abs=1e-9)
    assert float(same.total_variation) > 0.1
    other = network.losses(torch.rand(2, 3, 64, 64), maps, network.grams(maps))
    assert other.content > 0


@pytest.mark.parametrize(
    ("name", "weights"),
    [("efficientnet_lite0", Weights.PRETRAINED), ("efficientnet_lite0", Weights.NONE), ("tiny_vgg", Weights.NONE)],
)
def test_losses_are_of_one_size_whatever_the_network(name: str, weights: Weights) -> None:
    tiny_encoder()
    network = _network(name, weights)
    grey, noise = torch.full((1, 3, 96, 96), 0.5), torch.rand(1, 3, 96, 96)
    wanted = network.maps(noise)
    losses = network.losses(grey, wanted, network.grams(wanted))
    assert 0.001 < float(losses.content) < 10
    assert 0.001 < float(losses.style) < 10


def test_style_does_not_know_where_things_are() -> None:
    maps = torch.rand(1, 4, 6, 6)
    shuffled = maps.flatten(2)[:, :, torch.randperm(36)].view(1, 4, 6, 6)
    torch.testing.assert_close(gram(shuffled), gram(maps))
    assert float(total_variation(torch.full((1, 3, 8, 8), 0.3))) == 0


def test_similarity_is_that_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(1, 3, 16, 16, generator=generator)
    other = (one + 0.2 * torch.randn(1, 3, 16, 16, generator=generator)).clamp(0, 1)
    places = np.arange(11) - 5
    window = np.exp(-(places**2) / (2 * 1.5**2))
    weights = np.outer(window, window) / window.sum() ** 2
    values = []
    for channel in range(3):
        a, b = one[0, channel].double().numpy(), other[0, channel].double().numpy()
        for row in range(6):
            for column in range(6):
                x, y = a[row : row + 11, column : column + 11], b[row : row + 11, column : column + 11]
                mx, my = (weights * x).sum(), (weights * y).sum()
                vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
                cov = (weights * (x - mx) * (y - my)).sum()
                values.append((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
    assert float(ssim(one, other)) == pytest.approx(np.mean(values), rel=1e-5)
    assert float(ssim(one, one)) == pytest.approx(1)
    assert ssim(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)).shape == (2,)


@pytest.mark.parametrize("shape", [(8, 16), (40, 24)])
def test_the_transformer_keeps_the_size(shape: tuple[int, int]) -> None:
    with torch.inference_mode():
        pictures = TransformerNetwork(8, 1)(torch.rand(2, 3, *shape))
    assert pictures.shape == (2, 3, *shape)
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1
