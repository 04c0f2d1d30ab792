from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from enxerto.kernel.errors import DataLossError
from enxerto.vision.datasets.samples import Annotation
from enxerto.vision.finetuning import LossSpec
from enxerto.vision.geometry import place
from enxerto.vision.snapshots import encode_mask
from enxerto.vision.specs import PreprocessSpec, Resize, Split
from enxerto.vision.torch.pixel_arrays import PixelFile
from enxerto.vision.torch.segmentation.augmentation import MaskedAugmentation
from enxerto.vision.torch.segmentation.losses import MaskLoss, balanced_weights, count_classes, dice_loss
from enxerto.vision.torch.segmentation.masked_pictures import (
    decode_mask,
    load_masked,
    mask_to_input,
    mask_to_picture,
)
from fakes.datasets import segmentation_scenes, snapshot_of

HALF = (0.5, 0.5, 0.5)
STRETCH = PreprocessSpec(32, 48, 1.0, "bilinear", HALF, HALF, Resize.STRETCH)


def test_workers_share_a_split_without_overlap(tmp_path: Path) -> None:
    data = snapshot_of(segmentation_scenes(10), tmp_path)
    whole = load_masked(*data, Split.TRAIN, STRETCH)
    parts = [load_masked(*data, Split.TRAIN, STRETCH, rank=rank, world_size=2) for rank in range(2)]
    assert whole.images.shape == (whole.total, 32, 48, 3)
    assert whole.masks.shape == (whole.total, 32, 48)
    assert set(np.unique(whole.masks)) >= {0, 1, 2}
    for part in parts:
        assert (part.masks == whole.masks[part.indices]).all()
    assert sorted(np.concatenate([part.indices for part in parts])) == list(range(whole.total))
    in_file = load_masked(*data, Split.TRAIN, STRETCH, memory_bytes=100)
    assert isinstance(in_file.masks, PixelFile)
    assert (in_file.masks[:] == whole.masks).all()
    assert torch.equal(count_classes(in_file, 3), count_classes(whole, 3))


@pytest.mark.parametrize("resize", [Resize.STRETCH, Resize.LETTERBOX])
def test_a_mask_goes_to_the_input_and_back(resize: Resize) -> None:
    mask = np.zeros((40, 100), np.uint8)
    mask[10:30, 20:70] = 1
    placed = place(replace(STRETCH, height=80, width=200, resize=resize), 100, 40)
    moved = mask_to_input(mask, placed)
    assert moved.shape == (80, 200)
    assert (mask_to_picture(moved, placed) == mask).all()
    square = place(replace(STRETCH, height=200, width=200, resize=resize), 100, 40)
    there = mask_to_input(mask, square)
    assert (255 in there) is (resize is Resize.LETTERBOX)
    assert (mask_to_picture(there, square) == mask).all()


def test_a_sample_without_a_fitting_mask_is_damaged() -> None:
    sample = segmentation_scenes(4).samples[0]
    with pytest.raises(DataLossError, match="no mask"):
        decode_mask(replace(sample, annotation=Annotation()))
    small = encode_mask(np.zeros((3, 3), np.uint8))
    with pytest.raises(DataLossError, match="size"):
        decode_mask(replace(sample, annotation=Annotation(mask=small)))


def test_masks_follow_their_pictures() -> None:
    """Every pixel's colour is its class, wherever it went."""
    generator = np.random.default_rng(0)
    masks = torch.from_numpy(np.kron(generator.integers(0, 2, (6, 4, 6)), np.ones((8, 8), np.int64))).to(torch.uint8)
    images = (masks * 200)[:, None].repeat(1, 3, 1, 1)
    moved, followed = MaskedAugmentation(STRETCH)(images, masks, 1)
    assert moved.shape == images.shape
    assert followed.shape == masks.shape
    assert set(followed.unique().tolist()) <= {0, 1, 255}
    assert (followed == 255).any()
    kept = followed != 255
    bright = moved.float().mean(dim=1) > 100
    assert (bright[kept] == (followed[kept] == 1)).float().mean() > 0.95
    assert not torch.equal(followed, masks)
    again, _ = MaskedAugmentation(STRETCH)(images, masks, 1)
    assert torch.equal(again, moved)


def test_ignored_pixels_change_no_loss() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    masks[:, 0] = 255
    other = logits.clone()
    other[:, :, 0] += 5 * torch.randn(2, 3, 4)
    for spec in (LossSpec(), LossSpec(label_smoothing=0.1), LossSpec(focal_gamma=2.0)):
        loss = MaskLoss(spec, torch.tensor([1.0, 2.0, 3.0]))
        torch.testing.assert_close(loss(logits, masks), loss(other, masks))
    assert float(MaskLoss(LossSpec())(logits, torch.full_like(masks, 255))) == 0


def test_the_pixel_loss_is_torchs_own() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    weight = torch.tensor([1.0, 2.0, 3.0])
    ours = MaskLoss(LossSpec(), weight)(logits, masks) - dice_loss(logits, masks)
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, masks, weight=weight))


def test_a_right_answer_has_no_dice_loss() -> None:
    masks = torch.randint(0, 2, (1, 8, 8))
    right = 100 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert float(dice_loss(right, masks)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(-right, masks)) > 0.5


def test_rare_classes_weigh_more_within_bounds() -> None:
    weights = balanced_weights(torch.tensor([9000.0, 999.0, 1.0, 0.0]).double())
    assert list(weights) == sorted(weights)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights.max() / weights.min()) < 40
