from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from tasks.datasets.digits import digits
from tasks.samples.check import check
from tests.datasets.building import reading


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    of = check(digits(Path("ignored"), reading()), "digits")
    data = load_digits()
    assert of.images.shape == (1797, 1, 8, 8)
    images = np.asarray(of.images)
    assert np.abs(images[:, 0] - data.images * 255 / 16).max() <= 0.5
    assert (images.min(), images.max()) == (0, 255)
    assert np.array_equal(of.labels, data.target)
    assert of.classes == tuple("0123456789")
    assert of.sample_ids[5] == "digits/0005"
    assert of.row_counts == (("sklearn.datasets.load_digits", 1797),)


def test_a_quarter_of_every_digit_is_the_test_part_and_always_the_same() -> None:
    of = digits(Path(), reading())
    for label in range(10):
        own = of.is_test[of.labels == label]
        assert abs(own.mean() - 0.25) < 0.5 / len(own) + 1e-9
    assert np.array_equal(of.is_test, digits(Path("elsewhere"), reading(12)).is_test)
    assert np.flatnonzero(of.is_test)[:5].tolist() == [12, 15, 16, 19, 31]


def test_digits_are_resized() -> None:
    assert digits(Path(), reading(28)).images.shape == (1797, 1, 28, 28)
