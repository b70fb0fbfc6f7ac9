"""How often an attacker who has learned a threshold guesses membership right."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.intervals import Estimate, proportion

LARGEST = 1e6
"""Scores are cut off here before the regression, whose solver overflows on those of a diverged model."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """Outcome of repeated guessing.

    Attributes
    ----------
    right
        ``int64 [n]``: how often each sample's membership was guessed right.
    made
        ``int64 [n]``: how often it was guessed; 0 where no fold drew the sample.
    """

    right: NDArray[np.int64]
    made: NDArray[np.int64]

    def accuracy(self, confidence: float) -> Estimate:
        """Share of right guesses with its Clopper–Pearson interval.

        Guesses on one sample are not independent, so the interval counts Kish's effective number of
        samples, (Σ made)² / Σ made², in place of guesses. Without any guess the accuracy is
        chance, one half, and the interval is [0, 1].
        """
        if not self.made.any():
            return Estimate(0.5, 0.0, 1.0)
        value = float(self.right.sum() / self.made.sum())
        trials = float(self.made.sum() ** 2 / (self.made**2).sum())
        return proportion(value * trials, trials, confidence)


def guess(scores: NDArray[np.float64], is_member: NDArray[np.bool_], folds: int, seed: int) -> Guesses:
    """Guess membership by logistic regression on the score, always on samples held out from the fit.

    Stratified shuffle split, a tenth held out in each fold: the starting kit of the NeurIPS 2023
    unlearning challenge (``simple_mia``), whose mean accuracy this is. With few samples at least
    one of each side is held out; with a single sample a side nobody can learn a threshold, and no
    guess is made.

    Parameters
    ----------
    scores
        ``float64 [n]``.
    is_member
        ``bool [n]``; both sides equally large.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedShuffleSplit

    right = np.zeros(len(scores), np.int64)
    made = np.zeros(len(scores), np.int64)
    if len(scores) < 4:
        return Guesses(right, made)
    scores = np.clip(scores, -LARGEST, LARGEST)
    held_out = max(2, ceil(0.1 * len(scores)))
    splits = StratifiedShuffleSplit(n_splits=folds, test_size=held_out, random_state=seed)
    for seen, unseen in splits.split(scores, is_member):
        attacker = LogisticRegression().fit(scores[seen, None], is_member[seen])
        right[unseen] += attacker.predict(scores[unseen, None]) == is_member[unseen]
        made[unseen] += 1
    return Guesses(right, made)
