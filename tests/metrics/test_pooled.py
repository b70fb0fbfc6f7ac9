from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.metrics.pooled import Moments, placements, pooled_auc


def test_the_mean_placement_is_the_auc() -> None:
    random = np.random.default_rng(0)
    members, others = random.integers(0, 30, 40).astype(float), random.integers(0, 25, 60).astype(float)
    truth = np.r_[np.ones(40), np.zeros(60)]
    expected = roc_auc_score(truth, np.r_[members, others])
    assert np.mean(placements(members, others)) == pytest.approx(expected, abs=1e-4)


def test_placements_are_in_order_of_size_not_of_samples() -> None:
    assert placements(np.array([3.0, 1.0, 2.0]), np.array([0.5, 1.5, 2.5, 2.0])) == [0.25, 0.625, 1.0]


def test_small_groups_pool_to_one_estimate() -> None:
    found = pooled_auc([Moments.of_placements([0.2], 50), Moments.of_placements([0.4, 0.9], 50)], 0.95)
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize("area", [0.5, 0.65])
def test_the_interval_covers_as_often_as_it_says(area: float) -> None:
    """400 cohorts of 30 batches of 3 members against the same 400 others; 95 % give or take 4 points."""
    from scipy.stats import norm

    shift = np.sqrt(2) * norm.ppf(area)
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        others = random.normal(size=400)
        placed = [placements(random.normal(shift, size=3), others) for _ in range(30)]
        groups = [Moments.of_placements(values, 400) for values in placed]
        found = pooled_auc(groups, 0.95)
        hits += found.low <= area <= found.high
    assert 0.91 <= hits / 400 <= 0.99


def test_a_single_member_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two members"):
        pooled_auc([Moments.of_placements([0.3], 10)], 0.95)


def test_sums_give_the_estimate_of_the_placements_themselves() -> None:
    random = np.random.default_rng(2)
    groups = [(random.random(size), 20 * size) for size in (1, 3, 17)]
    values = np.concatenate([placed for placed, _ in groups])
    shared = sum(len(placed) / len(values) / np.sqrt(12 * others) for placed, others in groups)
    half = 1.959963984540054 * np.sqrt(values.var(ddof=1) / len(values) + shared**2)
    found = pooled_auc([Moments.of_placements(list(placed), others) for placed, others in groups], 0.95)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_merged_groups_give_the_same_estimate_up_to_rounding_of_the_non_members() -> None:
    random = np.random.default_rng(3)
    groups = [Moments.of_placements(list(random.random(size)), 400 * size) for size in (1, 3, 17)]
    merged = Moments.merged(groups)
    assert merged is not None
    assert merged.count == 21
    assert pooled_auc([merged], 0.95) == pytest.approx(pooled_auc(groups, 0.95), abs=1e-4)
    assert Moments.merged([]) is None
    assert Moments.of_sums(merged.as_sums()) == merged
