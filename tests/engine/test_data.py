from __future__ import annotations

import numpy as np
import torch

from tasks.engine.data import normalise, to_device
from tests import tiny


def test_every_pixel_value_is_scaled_by_the_fixed_constants() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    expected = (np.arange(256) - 127.5) / 64  # exact in float32
    result = normalise(pixels)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy().reshape(-1), expected)


def test_an_image_is_scaled_alike_whatever_images_are_beside_it() -> None:
    images = tiny.noise(20, channels=3).images
    together = normalise(images)
    for row in range(20):
        assert torch.equal(normalise(images[row : row + 1])[0], together[row])


def test_batches_are_channels_last_and_the_images_stay_as_they_were() -> None:
    images = tiny.noise(4, channels=3).images
    before = images.clone()
    result = normalise(images)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.shape == images.shape
    assert torch.equal(images, before)
    assert images.dtype == torch.uint8


def test_a_subset_is_a_copy_of_the_rows_in_their_order() -> None:
    data = tiny.noise(10)
    part = data.subset(np.array([7, 2, 2]))
    assert torch.equal(part.images, data.images[[7, 2, 2]])
    assert torch.equal(part.labels, data.labels[[7, 2, 2]])
    part.images.zero_()
    assert int(data.images[7].sum()) > 0


def test_the_given_rows_go_to_the_device() -> None:
    images = np.arange(5 * 4, dtype=np.uint8).reshape(5, 1, 2, 2)
    labels = np.arange(5)
    data = to_device(images, labels, np.array([4, 0]), torch.device("cpu"))
    assert data.images.tolist() == images[[4, 0]].tolist()
    assert data.labels.tolist() == [4, 0]
    assert len(data) == 2
    assert data.device == torch.device("cpu")
