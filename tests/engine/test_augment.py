from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chi2

from tasks.core.params import Augment
from tasks.engine.augment import augment, crop, cutout, flip, scaled, sides

RARE = 1e-6
"""Chance that a correct generator fails one of the tests of uniformity, for a random seed."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int, channels: int = 1, height: int = 8, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, height, width), generator=generator(seed), dtype=torch.uint8
    )


def ramps(count: int, size: int = 8) -> torch.Tensor:
    """Copies of one image whose pixels are all different, so that a window shows its offset."""
    return torch.arange(size * size, dtype=torch.uint8).reshape(1, 1, size, size).expand(count, 1, size, size)


def windows(image: NDArray[np.uint8], pad: int) -> NDArray[np.uint8]:
    """All legal crops of one image ``[C, H, W]``, by NumPy: ``[2·pad + 1, 2·pad + 1, C, H, W]``."""
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
    height, width = image.shape[1:]
    shifts = range(2 * pad + 1)
    return np.stack([np.stack([padded[:, y : y + height, x : x + width] for x in shifts]) for y in shifts])


def is_uniform(counts: NDArray[np.int64]) -> bool:
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic < float(chi2.isf(RARE, counts.size - 1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "pad"), [(8, 8, 1), (8, 8, 4), (6, 9, 5), (5, 4, 3)])
def test_a_crop_is_the_window_of_the_reflected_image_at_the_drawn_offset(
    channels: int, height: int, width: int, pad: int
) -> None:
    batch = images(40, channels, height, width)
    cropped = crop(batch, pad, generator(1)).numpy()
    rows, columns = torch.randint(2 * pad + 1, (2, len(batch)), generator=generator(1))
    for image, result, row, column in zip(batch.numpy(), cropped, rows, columns, strict=True):
        np.testing.assert_array_equal(result, windows(image, pad)[row, column])


@pytest.mark.parametrize(("height", "width", "pad"), [(3, 3, 7), (2, 5, 4), (1, 4, 3), (1, 1, 2), (4, 4, 4)])
def test_an_image_smaller_than_the_padding_is_reflected_again_and_again(
    height: int, width: int, pad: int
) -> None:
    batch = images(30, 1, height, width)
    for image, result in zip(batch.numpy(), crop(batch, pad, generator(0)).numpy(), strict=True):
        legal = windows(image, pad).reshape(-1, *image.shape)
        assert (legal == result).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize("seed", range(4))
def test_crop_offsets_are_uniform(seed: int) -> None:
    legal = windows(ramps(1)[0].numpy(), 2).reshape(25, -1)
    cropped = crop(ramps(10_000), 2, generator(seed)).numpy().reshape(10_000, 1, -1)
    counts = (cropped == legal).all(axis=2).sum(axis=0)
    assert counts.sum() == 10_000
    assert is_uniform(counts)


def test_all_channels_of_an_image_move_together() -> None:
    grey = images(50)
    for part in (
        crop(grey.repeat(1, 3, 1, 1), 3, generator(0)),
        flip(grey.repeat(1, 3, 1, 1), generator(0)),
        cutout(grey.repeat(1, 3, 1, 1), 3, generator(0)),
    ):
        assert torch.equal(part[:, 0], part[:, 1])
        assert torch.equal(part[:, 0], part[:, 2])


@pytest.mark.parametrize("seed", range(4))
def test_a_flip_mirrors_each_image_with_probability_one_half(seed: int) -> None:
    batch = images(4000, 3, 5, 7, seed)
    flipped = flip(batch, generator(seed))
    as_it_was = (flipped == batch).all(dim=(1, 2, 3))
    mirrored = (flipped == torch.from_numpy(batch.numpy()[..., ::-1].copy())).all(dim=(1, 2, 3))
    assert bool((as_it_was ^ mirrored).all())
    assert abs(int(mirrored.sum()) - 2000) < 5 * 0.5 * 4000**0.5  # 5 standard deviations


def blanked(side: int, size: int) -> NDArray[np.bool_]:
    """What a cutout may blank, one mask for each centre, by a loop over centres."""
    masks = np.zeros((size, size, size, size), dtype=np.bool_)
    for y in range(size):
        for x in range(size):
            top, left = y - side // 2, x - side // 2
            masks[y, x, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    return masks.reshape(size * size, size * size)


@pytest.mark.parametrize("side", [1, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_cutout_is_one_grey_square_whose_centre_is_uniform(side: int, seed: int) -> None:
    count, size = 6_400, 8
    white = torch.full((count, 1, size, size), 255, dtype=torch.uint8)
    result = cutout(white, side, generator(seed)).numpy()
    assert set(np.unique(result)) == {128, 255}
    masks = (result == 128).reshape(count, 1, -1)
    counts = (masks == blanked(side, size)).all(axis=2).sum(axis=0)
    assert counts.sum() == count
    assert is_uniform(counts)
    areas = masks.sum(axis=(1, 2))
    assert areas.max() == side * side  # whole inside of the image, clipped at its edges


def test_a_cutout_leaves_the_other_pixels() -> None:
    batch = images(20, 3, 6, 9)
    result = cutout(batch, 2, generator(0))
    changed = result != batch
    assert bool((result[changed] == 128).all())
    assert int(changed.any(dim=1).sum(dim=(1, 2)).max()) <= 4


def test_a_cutout_of_twice_the_image_blanks_it_whole() -> None:
    assert bool((cutout(images(20), 16, generator(0)) == 128).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_all_parts_together_leave_the_input_as_it_was(channels: int) -> None:
    batch = images(30, channels, 6, 9)
    before = batch.clone()
    result = augment(batch, Augment(flip=True, crop=2, cutout=3), generator(0))
    assert torch.equal(batch, before)
    assert result.shape == batch.shape
    assert result.dtype == torch.uint8
    assert not torch.equal(result, batch)


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    batch, settings = images(30), Augment(flip=True, crop=2, cutout=3)
    first = augment(batch, settings, generator(7))
    assert torch.equal(first, augment(batch, settings, generator(7)))
    assert not torch.equal(first, augment(batch, settings, generator(8)))


def test_a_part_that_is_switched_off_changes_and_draws_nothing() -> None:
    random = generator(0)
    before = random.get_state()
    batch = images(5)
    assert torch.equal(augment(batch, Augment(), random), batch)
    assert torch.equal(random.get_state(), before)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_alternating_sides_show_each_image_both_ways_in_two_epochs(seed: int) -> None:
    cpu = torch.device("cpu")
    first, second, third = (sides(4000, seed=seed, epoch=epoch, device=cpu) for epoch in (1, 2, 3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert abs(int(first.sum()) - 2000) < 5 * 4000**0.5 / 2  # five standard deviations


def test_a_scaled_image_is_the_mean_of_the_pixels_below_each() -> None:
    batch = images(3, channels=2).float()
    halved = scaled(batch, 0.5)
    assert halved.shape == (3, 2, 4, 4)
    flat = scaled(torch.full((1, 1, 9, 8), 7.0), 0.5)
    assert flat.shape == (1, 1, 4, 4)
    torch.testing.assert_close(flat, torch.full((1, 1, 4, 4), 7.0))
    # of a bilinear filter widened twofold, the weights at distances 1/2 and 3/2 are 3/8 and 1/8
    inner = batch[:, :, 1:5]
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    expected = torch.einsum("bchw,h,w->bc", inner[:, :, :, 1:5], weights, weights)
    torch.testing.assert_close(halved[:, :, 1, 1], expected)


def test_a_whole_image_is_left_as_it_is() -> None:
    batch = images(2).float()
    assert scaled(batch, 1.0) is batch
