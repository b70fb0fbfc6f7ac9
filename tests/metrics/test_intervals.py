from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from tasks.metrics.intervals import Estimate, auc, auc_difference, delong, paired_difference, proportion

Pair = tuple[NDArray[np.float64], NDArray[np.bool_]]


def two_models(random: np.random.Generator, n: int, m: int, gains: tuple[float, float]) -> Pair:
    """Scores ``[2, n + m]`` of two correlated models; members gain so many standard deviations."""
    is_member = np.arange(n + m) < n
    own = random.normal(size=(2, n + m))
    correlated = np.stack([own[0], 0.7 * own[0] + np.sqrt(1 - 0.49) * own[1]])
    return correlated + np.multiply.outer(gains, is_member), is_member


def true_auc(gain: float) -> float:
    return float(norm.cdf(gain / np.sqrt(2)))


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 30), (3, 30), (15, 30), (30, 30), (499, 500)])
def test_rates_have_the_exact_interval_of_scipy(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.9, method="exact")
    assert_allclose(
        proportion(successes, trials, 0.9), [successes / trials, expected.low, expected.high], atol=1e-12
    )


def test_a_fractional_number_of_trials_lies_between_its_neighbours() -> None:
    lows = [proportion(0.4 * trials, trials, 0.95).low for trials in (20, 22.5, 25)]
    assert lows == sorted(lows)


@pytest.mark.parametrize("seed", range(5))
def test_delong_agrees_with_counting_every_pair(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, is_member = two_models(random, 23, 31, (0.5, 0.0))
    scores[1] = np.round(scores[1])  # ties
    members, nonmembers = scores[:, is_member], scores[:, ~is_member]
    wins = np.sign(members[:, :, None] - nonmembers[:, None, :]) / 2 + 0.5
    by_member, by_nonmember = wins.mean(axis=2), wins.mean(axis=1)
    expected = np.empty((2, 2))
    for a, b in product(range(2), repeat=2):
        expected[a, b] = sum(
            ((one[a] - one[a].mean()) * (one[b] - one[b].mean())).sum() / (one.shape[1] - 1) / one.shape[1]
            for one in (by_member, by_nonmember)
        )
    areas, covariance = delong(scores, is_member)
    assert_allclose(areas, wins.mean(axis=(1, 2)))
    assert_allclose(areas, [roc_auc_score(is_member, row) for row in scores])
    assert_allclose(covariance, expected)


def test_delong_agrees_with_the_bootstrap() -> None:
    random = np.random.default_rng(0)
    scores, is_member = two_models(random, 300, 400, (0.6, 0.2))
    drawn = []
    for _ in range(800):
        rows = np.concatenate([random.integers(300, size=300), 300 + random.integers(400, size=400)])
        drawn.append(delong(scores[:, rows], is_member)[0])
    # 800 draws give a standard deviation to 2.5 %; four of these either way.
    assert_allclose(np.sqrt(np.diag(delong(scores, is_member)[1])), np.std(drawn, axis=0), rtol=0.1)
    difference = auc_difference(scores[0], scores[1], is_member, 0.95)
    spread = np.std(np.diff(drawn, axis=1))
    assert (difference.high - difference.low) / 2 / 1.96 == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(
    ("n", "gains"), [(20, (0.0, 0.0)), (20, (1.0, 0.3)), (200, (0.3, 0.0)), (60, (2.5, 2.0))]
)
def test_intervals_hold_the_truth_as_often_as_they_say(n: int, gains: tuple[float, float]) -> None:
    random = np.random.default_rng(n)
    truth = true_auc(gains[0])
    trials = 400
    held = np.zeros(2)
    for _ in range(trials):
        scores, is_member = two_models(random, n, n, gains)
        area, difference = (
            auc(scores[0], is_member, 0.9),
            auc_difference(scores[0], scores[1], is_member, 0.9),
        )
        held += [
            area.low <= truth <= area.high,
            difference.low <= truth - true_auc(gains[1]) <= difference.high,
        ]
    # The nominal 0.90 has a standard error of 0.015 over 400 trials; conservative is allowed.
    assert held.min() / trials > 0.85


def test_the_half_width_at_500_against_500_is_what_the_definitions_state() -> None:
    scores, is_member = two_models(np.random.default_rng(1), 500, 500, (0.0, 0.0))
    area = auc(scores[0], is_member, 0.95)
    assert (area.high - area.low) / 2 == pytest.approx(0.036, abs=0.001)


def test_pairing_narrows_the_interval_of_correlated_models() -> None:
    scores, is_member = two_models(np.random.default_rng(2), 300, 300, (0.5, 0.5))
    own = [auc(row, is_member, 0.95) for row in scores]
    difference = auc_difference(scores[0], scores[1], is_member, 0.95)
    unpaired = np.hypot(own[0].high - own[0].low, own[1].high - own[1].low)
    assert difference.high - difference.low < 0.7 * unpaired


def test_swapping_the_models_turns_the_difference_round() -> None:
    scores, is_member = two_models(np.random.default_rng(3), 80, 50, (0.5, 0.1))
    value, low, high = auc_difference(scores[0], scores[1], is_member, 0.95)
    assert_allclose(auc_difference(scores[1], scores[0], is_member, 0.95), [-value, -high, -low])


def test_an_area_depends_on_the_order_of_the_scores_alone() -> None:
    scores, is_member = two_models(np.random.default_rng(4), 80, 50, (0.5, 0.1))
    assert_allclose(auc(scores[0], is_member, 0.95), auc(np.exp(5 * scores[0]), is_member, 0.95))


@pytest.mark.parametrize("turned", [False, True])
def test_perfect_separation_has_the_exact_interval_of_the_disjoint_pairs(turned: bool) -> None:
    is_member = np.arange(70) < 30
    area = auc((is_member ^ turned).astype(float), is_member, 0.95)
    edge = 0.025 ** (1 / 30)
    assert_allclose(area, [0, 0, 1 - edge] if turned else [1, edge, 1])


def test_tied_scores_are_worth_one_half_and_leave_a_wide_interval() -> None:
    is_member = np.arange(60) < 30
    assert auc(np.zeros(60), is_member, 0.95) == proportion(15, 30, 0.95)


def test_one_sample_a_side_says_nearly_nothing() -> None:
    area = auc(np.array([1.0, 0.0]), np.array([True, False]), 0.95)
    assert (area.value, area.high) == (1, 1)
    assert area.low < 0.05


@pytest.mark.parametrize("kind", ["same", "perfect", "tied", "opposite"])
def test_a_difference_without_variance_still_has_an_interval(kind: str) -> None:
    is_member = np.arange(100) < 50
    perfect = is_member.astype(float)
    noise = np.random.default_rng(0).normal(size=100)
    first, second = {
        "same": (noise, 2 * noise),
        "perfect": (perfect, 3 * perfect),
        "tied": (perfect, 0 * perfect),
        "opposite": (perfect, -perfect),
    }[kind]
    difference = auc_difference(first, second, is_member, 0.95)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    assert difference.value == {"same": 0, "perfect": 0, "tied": 0.5, "opposite": 1}[kind]
    assert 0.02 < difference.high - difference.low < 0.2


def test_paired_rates_agree_with_the_published_interval() -> None:
    # Agresti & Min 2005: counts 1, 7 off the diagonal among 20 pairs; by hand from their formula
    # with half a pair added to each cell: (7.5 − 1.5)/22 ± 1.96·sqrt(9 − 36/22)/22.
    differences = np.repeat([1.0, -1.0, 0.0], [7, 1, 12])
    reach = norm.isf(0.025) * np.sqrt(9 - 36 / 22) / 22
    assert_allclose(paired_difference(differences, 0.95), [0.3, 6 / 22 - reach, 6 / 22 + reach])


@pytest.mark.parametrize("seed", range(3))
def test_paired_rates_hold_the_truth_as_often_as_they_say(seed: int) -> None:
    random = np.random.default_rng(seed)
    drawn = random.choice([1.0, -1.0, 0.0], p=[0.06, 0.02, 0.92], size=(1000, 60))
    estimates = [paired_difference(row, 0.95) for row in drawn]
    held = np.mean([low <= 0.04 <= high for _, low, high in estimates])
    assert held > 0.93


def test_weights_that_repeat_samples_count_them_once() -> None:
    differences = np.array([1.0, 0.0, 0.0, -1.0, 1.0])
    assert_allclose(
        paired_difference(differences, 0.95, weights=np.full(5, 3.0)), paired_difference(differences, 0.95)
    )
    half = paired_difference(np.array([*differences, 1.0]), 0.95, weights=np.array([1.0] * 5 + [0.0]))
    assert_allclose(half, paired_difference(differences, 0.95))


def test_nothing_weighed_is_nothing_known() -> None:
    assert paired_difference(np.zeros(2), 0.95, weights=np.zeros(2)) == Estimate(0, -1, 1)
