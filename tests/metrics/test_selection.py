from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tasks.core.errors import ExpungeError
from tasks.metrics.selection import match_classes


def test_each_class_has_as_many_members_as_nonmembers() -> None:
    members = np.repeat([0, 1, 2, 4], [30, 5, 12, 3])
    nonmembers = np.repeat([0, 1, 2, 3], [10, 40, 12, 9])
    chosen, others = match_classes(members, nonmembers, seed=0)
    expected = [10, 5, 12]
    assert_array_equal(np.bincount(members[chosen]), expected)
    assert_array_equal(np.bincount(nonmembers[others]), expected)


def test_no_sample_is_drawn_twice() -> None:
    random = np.random.default_rng(1)
    for positions in match_classes(random.integers(4, size=99), random.integers(4, size=70), seed=3):
        assert len(set(positions.tolist())) == len(positions)


def test_the_seed_decides_the_draw() -> None:
    members, nonmembers = np.zeros(5, np.int64), np.zeros(100, np.int64)
    first, again, other = (match_classes(members, nonmembers, seed)[1] for seed in (7, 7, 8))
    assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


def test_every_candidate_is_equally_likely() -> None:
    members, nonmembers = np.zeros(20, np.int64), np.zeros(50, np.int64)
    drawn = np.concatenate([match_classes(members, nonmembers, seed)[1] for seed in range(500)])
    # Binomial with mean 200 and standard deviation 11: five of them either way.
    assert np.abs(np.bincount(drawn, minlength=50) - 200).max() < 55


def test_sides_without_a_common_class_are_refused() -> None:
    with pytest.raises(ExpungeError, match="no test sample is of the same class"):
        match_classes(np.array([0, 0]), np.array([1, 2]), seed=0)
