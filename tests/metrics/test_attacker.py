from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from tasks.metrics.attacker import Guesses, guess


def halves(n: int) -> np.ndarray:
    return np.arange(2 * n) < n


@pytest.mark.parametrize("n", [10, 37, 300])
def test_the_accuracy_is_that_of_the_starting_kit(n: int) -> None:
    losses = np.exp(np.random.default_rng(n).normal(size=2 * n) - halves(n))
    published = cross_val_score(
        LogisticRegression(),
        losses.reshape(-1, 1),
        halves(n).astype(int),
        cv=StratifiedShuffleSplit(n_splits=10, random_state=5),
        scoring="accuracy",
    ).mean()
    assert guess(-losses, halves(n), folds=10, seed=5).accuracy(0.95).value == pytest.approx(published)


@pytest.mark.parametrize("seed", range(4))
def test_the_accuracy_nears_the_best_possible_one(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=1000) + 2 * halves(500)
    # The threshold in the middle is right with probability Φ(1); the interval's reach is 0.04.
    accuracy = guess(scores, halves(500), folds=20, seed=seed).accuracy(0.99)
    assert accuracy.low <= norm.cdf(1) <= accuracy.high
    assert accuracy.high - accuracy.low < 0.1


def test_scores_without_a_signal_are_guessed_by_chance() -> None:
    accuracy = guess(np.zeros(200), halves(100), folds=10, seed=0).accuracy(0.95)
    assert accuracy.value == 0.5
    assert accuracy.low < 0.45


def test_perfect_separation_leaves_an_interval() -> None:
    accuracy = guess(halves(100).astype(float), halves(100), folds=10, seed=0).accuracy(0.95)
    assert (accuracy.value, accuracy.high) == (1, 1)
    assert 0.9 < accuracy.low < 0.99


def test_the_interval_counts_samples_and_not_guesses() -> None:
    many = Guesses(right=np.full(50, 70), made=np.full(50, 100))
    few = Guesses(right=np.full(50, 7), made=np.full(50, 10))
    assert many.accuracy(0.95) == pytest.approx(few.accuracy(0.95))


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("folds", [2, 25])
def test_a_handful_of_samples_is_guessed_with_both_sides_held_out(n: int, folds: int) -> None:
    guesses = guess(np.arange(2.0 * n), halves(n), folds=folds, seed=0)
    assert guesses.made.sum() == 2 * folds
    assert guesses.made[:n].sum() == folds


def test_one_sample_a_side_gives_chance_and_the_whole_interval() -> None:
    assert guess(np.array([1.0, 0.0]), halves(1), folds=10, seed=0).accuracy(0.95) == (0.5, 0, 1)


@pytest.mark.parametrize("scale", [1e-12, 1e4, 1e12, 1e38])
def test_losses_of_any_size_are_fitted(scale: float) -> None:
    losses = scale * np.random.default_rng(0).random(200)
    losses[3] = 6e38
    accuracy = guess(-losses, halves(100), folds=5, seed=0).accuracy(0.95)
    assert 0.3 < accuracy.value < 0.7
