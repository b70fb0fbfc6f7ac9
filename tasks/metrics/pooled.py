"""Several forget sets judged together, by what was kept of each: the placements of its members."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from tasks.metrics.intervals import Estimate


def placements(members: NDArray[np.floating], nonmembers: NDArray[np.floating]) -> list[float]:
    """Share of non-members that score lower than each member, ascending; ties count half.

    Their mean is the AUC (Hanley & McNeil 1982): placements are the components by which DeLong et al.
    (1988) take it apart. Rounded to four digits and sorted they are of no use to find a member again.

    Parameters
    ----------
    members, nonmembers
        Scores ``[n]`` and ``[m]``, higher for what looks like a member.
    """
    ordered = np.sort(nonmembers)
    below = np.searchsorted(ordered, members, side="left")
    upto = np.searchsorted(ordered, members, side="right")
    return sorted(round(float(value), 4) for value in (below + upto) / 2 / len(ordered))


def pooled_auc(groups: Sequence[tuple[Sequence[float], int]], confidence: float) -> Estimate:
    """AUC over the members of all groups, each compared with its own non-members.

    The variance is DeLong's in its two parts: that of the members' placements, and that of the non-members',
    for which the variance of a uniform distribution stands, ``1 / 12 m``, since they were not kept.
    Groups are treated as independent; where they share non-members, the second part is added in full.

    Parameters
    ----------
    groups
        Placements of the members, and how many non-members they were compared with.
    confidence
        Of the interval, which ends at 0 and 1.

    Raises
    ------
    ValueError
        If there are fewer than two members.
    """
    pooled = np.concatenate([np.asarray(values, dtype=np.float64) for values, _ in groups])
    if len(pooled) < 2:
        raise ValueError("a spread needs two members")
    weights = np.array([len(values) / len(pooled) for values, _ in groups])
    shared = float(weights @ np.array([1 / math.sqrt(12 * count) for _, count in groups]))
    area = float(pooled.mean())
    deviation = math.sqrt(float(pooled.var(ddof=1)) / len(pooled) + shared**2)
    half = float(norm.ppf((1 + confidence) / 2)) * deviation
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))
