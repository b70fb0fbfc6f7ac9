from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.metrics.pooled import placements, pooled_auc


def test_the_mean_placement_is_the_auc() -> None:
    random = np.random.default_rng(0)
    members, others = random.integers(0, 30, 40).astype(float), random.integers(0, 25, 60).astype(float)
    truth = np.r_[np.ones(40), np.zeros(60)]
    expected = roc_auc_score(truth, np.r_[members, others])
    assert np.mean(placements(members, others)) == pytest.approx(expected, abs=1e-4)


def test_placements_are_in_order_of_size_not_of_samples() -> None:
    assert placements(np.array([3.0, 1.0, 2.0]), np.array([0.5, 1.5, 2.5, 2.0])) == [0.25, 0.625, 1.0]


def test_small_groups_pool_to_one_estimate() -> None:
    found = pooled_auc([([0.2], 50), ([0.4, 0.9], 50)], 0.95)
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
        groups = [(placements(random.normal(shift, size=3), others), 400) for _ in range(30)]
        found = pooled_auc(groups, 0.95)
        hits += found.low <= area <= found.high
    assert 0.91 <= hits / 400 <= 0.99


def test_a_single_member_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two members"):
        pooled_auc([([0.3], 10)], 0.95)
