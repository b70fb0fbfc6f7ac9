from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.testing import assert_allclose

from tasks.metrics.histogram import SMALLEST, loss_counts

HALVES = np.arange(200) < 100


def test_every_sample_is_counted_once_on_one_axis_of_whole_decades() -> None:
    random = np.random.default_rng(0)
    losses = {name: 10 ** random.uniform(-3.5, 0.5, size=200) for name in ("original", "retrained")}
    counts = loss_counts(losses, HALVES)
    for sides in counts.values():
        assert sides.forget.sum() == sides.test.sum() == 100
        assert_allclose(sides.edges[[0, -1]], [1e-4, 10])
        assert_allclose(np.diff(np.log10(sides.edges)), 1 / 6)


def test_a_wide_axis_has_coarser_bins() -> None:
    edges = loss_counts({"original": np.logspace(-10, 0, 200)}, HALVES)["original"].edges
    assert_allclose(np.diff(np.log10(edges)), 1 / 3)


def test_counts_agree_with_the_samples_between_the_edges() -> None:
    losses = 10 ** np.random.default_rng(1).uniform(-2, 0, size=200)
    edges, forget, test = loss_counts({"original": losses}, HALVES)["original"]
    for place, (left, right) in enumerate(pairwise(edges)):
        inside = (left <= losses) & (losses < right)
        assert (forget[place], test[place]) == (inside[HALVES].sum(), inside[~HALVES].sum())


def test_losses_of_zero_and_of_a_diverged_model_stand_in_the_end_bins() -> None:
    losses = np.full(200, 0.5)
    losses[0], losses[150] = 0, 1e38
    edges, forget, test = loss_counts({"original": losses}, HALVES)["original"]
    assert (forget[0], test[-1]) == (1, 1)
    assert edges[-1] <= 10
    assert forget.sum() == test.sum() == 100


def test_losses_that_are_all_zero_still_have_an_axis() -> None:
    edges, forget, _ = loss_counts({"original": np.zeros(200)}, HALVES)["original"]
    assert_allclose(edges[[0, -1]], [SMALLEST, 10 * SMALLEST])
    assert forget[0] == 100
