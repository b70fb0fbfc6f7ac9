from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_curve

from tasks.metrics.roc import roc, supports, thinned, tpr_at

HALVES = np.arange(400) < 200


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_agrees_with_scikit_learn_with_and_without_ties(seed: int) -> None:
    random = np.random.default_rng(seed)
    for scores in (random.normal(size=400) + HALVES, random.integers(6, size=400).astype(float)):
        false, true, _ = roc_curve(HALVES, scores, drop_intermediate=False)
        assert_allclose(np.stack(roc(scores, HALVES)), np.stack([false, true]))


def test_tied_scores_give_only_the_two_trivial_points() -> None:
    false, true = roc(np.zeros(400), HALVES)
    assert_array_equal(false, [0, 1])
    assert_array_equal(true, [0, 1])


def test_the_rate_at_low_false_positives_agrees_with_trying_every_threshold() -> None:
    random = np.random.default_rng(3)
    scores = np.round(random.normal(size=400) + HALVES, 1)
    for rate in (0.0, 0.001, 0.005, 0.01, 0.1, 1.0):
        allowed = [
            (scores[HALVES] >= threshold).mean()
            for threshold in [*scores, np.inf]
            if (scores[~HALVES] >= threshold).mean() <= rate
        ]
        assert tpr_at(rate, scores, HALVES, 0.95).value == pytest.approx(max(allowed))


def test_the_rate_at_low_false_positives_never_credits_a_tie_with_nonmembers() -> None:
    assert tpr_at(0.01, np.zeros(400), HALVES, 0.95).value == 0
    assert tpr_at(0.001, HALVES.astype(float), HALVES, 0.95).value == 1


@pytest.mark.parametrize(
    ("rate", "nonmembers", "supported"),
    [(0.001, 10_000, True), (0.001, 9_999, False), (0.01, 1_000, True), (0.01, 999, False)],
)
def test_ten_false_positives_are_asked_for(rate: float, nonmembers: int, supported: bool) -> None:
    assert supports(rate, nonmembers) is supported


def test_a_thinned_curve_is_short_and_lies_on_the_full_one() -> None:
    random = np.random.default_rng(4)
    is_member = np.arange(20_000) < 10_000
    false, true = roc(random.normal(size=20_000) + is_member, is_member)
    thin_false, thin_true = thinned((false, true), 500)
    assert 300 < len(thin_false) <= 500
    assert set(zip(thin_false, thin_true, strict=True)) <= set(zip(false, true, strict=True))
    assert (thin_false[-1], thin_true[-1]) == (1, 1)
    assert thin_false[0] == 0
    # A step curve drawn through the points kept stays close to the full one everywhere.
    drawn = thin_true[np.searchsorted(thin_false, false, side="right") - 1]
    assert np.abs(drawn - true).max() < 0.02


def test_a_short_curve_is_left_as_it_is() -> None:
    curve = roc(np.arange(400.0), HALVES)
    assert thinned(curve, 500) is curve
