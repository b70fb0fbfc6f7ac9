"""Estimates with confidence intervals: rates, areas under ROC curves, and paired differences."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import beta, norm, rankdata

ROUNDING = 1e-28
"""A variance of areas that is no larger is zero but for rounding."""


class Estimate(NamedTuple):
    """A figure and its confidence interval."""

    value: float
    low: float
    high: float


def proportion(successes: float, trials: float, confidence: float) -> Estimate:
    """A rate with its Clopper–Pearson interval (Clopper & Pearson 1934).

    ``successes`` and ``trials`` need not be whole: an effective number of samples is not.
    """
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = float(beta.ppf(tail, successes, failures + 1)) if successes > 0 else 0.0
    high = float(beta.isf(tail, successes + 1, failures)) if failures > 0 else 1.0
    return Estimate(successes / trials, low, high)


def auc(scores: NDArray[np.float64], is_member: NDArray[np.bool_], confidence: float) -> Estimate:
    """Area under the ROC curve, ties counted half, with an interval inside [0, 1].

    The interval is DeLong's on the logit scale. Where DeLong's variance is zero (perfect separation,
    all scores tied, one sample a side) it is Clopper–Pearson's for as many trials as there are
    disjoint pairs of a member and a non-member: each such pair is an independent trial that
    succeeds with probability AUC.

    Parameters
    ----------
    scores
        ``float64 [n]``; higher for members.
    is_member
        ``bool [n]``, at least one of each.
    """
    areas, covariance = delong(scores[None], is_member)
    area, variance = float(areas[0]), float(covariance[0, 0])
    if not variance > ROUNDING:
        pairs = _disjoint_pairs(is_member)
        return proportion(area * pairs, pairs, confidence)
    reach = _quantile(confidence) * sqrt(variance) / (area * (1 - area))
    centre = float(logit(area))
    return Estimate(area, float(expit(centre - reach)), float(expit(centre + reach)))


def auc_difference(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    is_member: NDArray[np.bool_],
    confidence: float,
) -> Estimate:
    """AUC of the first scores minus AUC of the second, on the same samples: DeLong's paired interval.

    Where the variance of the difference is zero (the same order under both, or both degenerate) the
    interval is :func:`paired_difference`'s for the disjoint pairs of a member and a non-member.
    """
    areas, covariance = delong(np.stack([first, second]), is_member)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if not variance > ROUNDING:
        return paired_difference(np.full(_disjoint_pairs(is_member), difference), confidence)
    reach = _quantile(confidence) * sqrt(variance)
    return Estimate(difference, max(-1.0, difference - reach), min(1.0, difference + reach))


def delong(
    scores: NDArray[np.float64], is_member: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC of several scores on the same samples, and the covariance of these areas.

    DeLong et al. 1988, computed from midranks in O(n log n) as in Sun & Xu 2014, "Fast
    implementation of DeLong's algorithm".

    Parameters
    ----------
    scores
        ``float64 [k, n]``: one row a scoring.
    is_member
        ``bool [n]``.

    Returns
    -------
    tuple
        Areas ``float64 [k]`` and covariance ``float64 [k, k]``, NaN with one sample on a side.
    """
    members, nonmembers = scores[:, is_member], scores[:, ~is_member]
    n, m = members.shape[1], nonmembers.shape[1]
    ranks = rankdata(scores, axis=1)
    below_members = (ranks[:, is_member] - rankdata(members, axis=1)) / m
    above_nonmembers = 1 - (ranks[:, ~is_member] - rankdata(nonmembers, axis=1)) / n
    areas: NDArray[np.float64] = below_members.mean(axis=1)
    if min(n, m) < 2:
        return areas, np.full((len(scores), len(scores)), np.nan)
    covariance: NDArray[np.float64] = np.atleast_2d(np.cov(below_members) / n + np.cov(above_nonmembers) / m)
    return areas, covariance


def paired_difference(
    differences: NDArray[np.floating], confidence: float, weights: NDArray[np.floating] | None = None
) -> Estimate:
    """Mean of differences that lie in [−1, 1], with the interval of Agresti & Min 2005.

    "Simple improved confidence intervals for comparing matched proportions": two pairs are added,
    half a pair to each of the four possible outcomes, before the normal interval is taken. It is
    sound with few or no discordant pairs, where the plain interval shrinks to a point.

    Parameters
    ----------
    differences
        ``float [n]``: outcome of the first minus outcome of the second, a sample each.
    weights
        ``float [n]``, optional; the number of samples is then Kish's effective one.
    """
    shares = np.ones(len(differences)) if weights is None else weights.astype(np.float64)
    if not shares.any():
        return Estimate(0.0, -1.0, 1.0)
    count = float(shares.sum() ** 2 / (shares**2).sum())
    mean = float(np.average(differences, weights=shares))
    square = float(np.average(differences.astype(np.float64) ** 2, weights=shares))
    centre = count * mean / (count + 2)
    variance = ((count * square + 1) / (count + 2) - centre**2) / (count + 2)
    reach = _quantile(confidence) * sqrt(variance)
    return Estimate(mean, max(-1.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach)))


def _disjoint_pairs(is_member: NDArray[np.bool_]) -> int:
    return int(min(is_member.sum(), (~is_member).sum()))


def _quantile(confidence: float) -> float:
    return float(norm.isf((1 - confidence) / 2))
