from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tasks.metrics.intervals import Estimate
from tasks.metrics.utility import average_gap, hits, nomus, simultaneous, time_ratio, tug_of_war

DIFFERENCES = [
    Estimate(0.10, 0.06, 0.14),
    Estimate(-0.04, -0.07, -0.01),
    Estimate(0.02, -0.01, 0.05),
    Estimate(-0.02, -0.05, 0.01),
]


def test_a_hit_is_the_largest_logit() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [0.0, 0.0, -1.0]])
    assert_array_equal(hits(logits, np.array([1, 0, 2])), [True, True, False])


def test_the_average_gap_is_the_mean_distance_either_way() -> None:
    assert_allclose(
        average_gap(DIFFERENCES),
        [(0.10 + 0.04 + 0.02 + 0.02) / 4, (0.06 + 0.01) / 4, (0.14 + 0.07 + 0.05 + 0.05) / 4],
    )


def test_tug_of_war_is_the_product_of_what_is_kept() -> None:
    assert_allclose(tug_of_war(DIFFERENCES[:3]), [0.90 * 0.96 * 0.98, 0.86 * 0.93 * 0.95, 0.94 * 0.99 * 1.0])


def test_equality_with_the_reference_is_a_gap_of_zero_and_a_tug_of_war_of_one() -> None:
    same = [Estimate(0.0, -0.01, 0.01)] * 3
    assert average_gap(same)[:2] == (0, 0)
    assert tug_of_war(same).value == 1
    assert tug_of_war(same).high == 1


@pytest.mark.parametrize(
    ("test", "attack", "expected"),
    [(0.8, 0.5, 0.9), (0.8, 0.6, 0.8), (0.8, 0.4, 0.8), (1.0, 1.0, 0.5), (0.0, 0.0, 0.0)],
)
def test_nomus_is_the_published_formula(test: float, attack: float, expected: float) -> None:
    assert nomus(Estimate(test, test, test), Estimate(attack, attack, attack)).value == pytest.approx(
        expected
    )


def test_the_interval_of_nomus_holds_it_and_ends_at_a_blind_attack() -> None:
    score = nomus(Estimate(0.8, 0.78, 0.82), Estimate(0.52, 0.48, 0.56))
    assert_allclose(score, [(0.8 + 0.96) / 2, (0.78 + 0.88) / 2, (0.82 + 1) / 2])


def test_the_time_ratio_stays_finite() -> None:
    assert time_ratio(30, 10) == 3
    assert time_ratio(30, 0) == 30_000


def test_parts_that_hold_together_are_each_held_more_firmly() -> None:
    assert simultaneous(0.95, 4) == pytest.approx(0.9875)
    assert simultaneous(0.95, 1) == pytest.approx(0.95)
