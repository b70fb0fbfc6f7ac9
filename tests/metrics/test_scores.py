from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from tasks.core.errors import ExpungeError
from tasks.metrics.scores import cross_entropy, logit_confidence


def test_cross_entropy_agrees_with_log_softmax() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=5, size=(200, 7)).astype(np.float32)
    labels = random.integers(7, size=200)
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(200), labels]
    assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-9, atol=1e-15)


def test_losses_far_below_machine_precision_keep_their_order() -> None:
    logits = np.array([[50.0, 0.0], [60.0, 0.0], [300.0, 0.0]])
    assert_allclose(cross_entropy(logits, np.zeros(3, np.int64)), np.exp([-50.0, -60.0, -300.0]), rtol=1e-12)


def test_huge_logits_neither_overflow_nor_lose_the_loss() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38]], np.float32)
    assert_allclose(cross_entropy(logits, np.zeros(2, np.int64)), [0.0, 6e38], rtol=1e-6)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    assert_allclose(cross_entropy(np.full((3, 10), 7.0), np.arange(3)), np.log(10))


def test_confidence_is_the_logit_of_the_true_class() -> None:
    p = np.array([0.9, 0.5, 1e-6])
    logits = np.log(np.stack([p, (1 - p) / 3, 2 * (1 - p) / 3], axis=1))
    assert_allclose(logit_confidence(logits, np.zeros(3, np.int64)), np.log(p / (1 - p)), rtol=1e-9)


def test_saturated_confidence_is_bounded_by_the_published_constant() -> None:
    bound = -np.log(1e-45)
    logits = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert_allclose(logit_confidence(logits, np.zeros(2, np.int64)), [bound, -bound])


def test_broken_logits_are_refused_with_their_row() -> None:
    logits = np.zeros((4, 3))
    logits[2, 1] = np.nan
    with pytest.raises(ExpungeError, match=r"NaN or infinity in 1 of 4 rows, the first is row 2"):
        cross_entropy(logits, np.zeros(4, np.int64))
    logits[2, 1] = -np.inf
    with pytest.raises(ExpungeError, match="row 2"):
        logit_confidence(logits, np.zeros(4, np.int64))


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), [0, 0, 0], "2 rows for 3 samples"),
        (np.zeros((2, 3)), [0, 3], "label in row 1 is 3"),
        (np.zeros((2, 3)), [-1, 0], "label in row 0 is -1"),
        (np.zeros((2, 3), np.int64), [0, 0], "holds int64"),
        (np.zeros((2, 3), np.complex128), [0, 0], "holds complex128"),
        (np.zeros(2), [0, 0], r"shape \[2\]"),
        (np.zeros((2, 1)), [0, 0], r"shape \[2, 1\]"),
    ],
)
def test_logits_that_do_not_fit_the_labels_are_refused(
    logits: np.ndarray, labels: list[int], message: str
) -> None:
    with pytest.raises(ExpungeError, match=message):
        cross_entropy(logits, np.array(labels))
