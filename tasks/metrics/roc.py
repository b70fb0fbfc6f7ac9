"""ROC curves of scores, and what remains at low false positive rates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.intervals import Estimate, proportion

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""False and true positive rates, ascending, from (0, 0) to (1, 1)."""


def roc(scores: NDArray[np.float64], is_member: NDArray[np.bool_]) -> Curve:
    """All operating points of "member if the score is at least t"; tied scores make one point."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(is_member[order])[last_of_tie]
    alarms = last_of_tie + 1 - hits
    true = np.concatenate([[0.0], hits / hits[-1]])
    false = np.concatenate([[0.0], alarms / alarms[-1]])
    return false, true


def tpr_at(
    rate: float, scores: NDArray[np.float64], is_member: NDArray[np.bool_], confidence: float
) -> Estimate:
    """Largest true positive rate with a false positive rate of at most ``rate``, with its interval.

    The interval (Clopper–Pearson) is that of the members' share at the threshold found; it does not
    count how uncertain the threshold is. See :func:`supports`.
    """
    false, true = roc(scores, is_member)
    members = int(is_member.sum())
    return proportion(true[false <= rate].max() * members, members, confidence)


def supports(rate: float, nonmembers: int) -> bool:
    """Whether so many non-members say anything at a false positive rate: ten false positives or more.

    That is 10,000 non-members at 0.1 %, 1,000 at 1 %.
    """
    return round(rate * nonmembers, 9) >= 10


def thinned(curve: Curve, points: int) -> Curve:
    """At most ``points`` points of a curve, dense where a linear or a logarithmic axis shows them.

    Every point kept is a point of the curve: the last one at or left of each rate of a grid, half of
    it evenly spaced, half of it in logarithms.
    """
    false, true = curve
    if len(false) <= points:
        return curve
    smallest = false[false > 0][0]
    half = points // 2 - 1
    grid = np.concatenate([[0.0], np.geomspace(smallest, 1, half), np.linspace(0, 1, half), [1.0]])
    kept = np.unique(np.searchsorted(false, grid, side="right") - 1)
    return false[kept], true[kept]
