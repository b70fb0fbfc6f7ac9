"""Several forget sets judged together, by what was kept of each: the placements of its members."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Moments:
    """What is kept of the placements of many members.

    Attributes
    ----------
    count, total, squares
        How many, their sum, and the sum of their squares.
    nonmembers
        How many non-members they were compared with.
    """

    count: int
    total: float
    squares: float
    nonmembers: int

    @classmethod
    def of_placements(cls, values: Sequence[float], nonmembers: int) -> Moments:
        """Sum placements up."""
        return cls(len(values), sum(values), sum(value**2 for value in values), nonmembers)

    @classmethod
    def of_sums(cls, sums: Mapping[str, float]) -> Moments:
        """Read sums as an event keeps them: ``count``, ``sum``, ``squares``, ``nonmembers``."""
        return cls(int(sums["count"]), sums["sum"], sums["squares"], int(sums["nonmembers"]))

    @classmethod
    def merged(cls, groups: Sequence[Moments]) -> Moments | None:
        """Sum groups up; the non-members become as many as give the same uncertainty together."""
        count = sum(group.count for group in groups)
        if not count:
            return None
        shared = sum(group.count / count / math.sqrt(12 * group.nonmembers) for group in groups)
        return cls(
            count,
            sum(group.total for group in groups),
            sum(group.squares for group in groups),
            max(1, round(1 / (12 * shared**2))),
        )

    def as_sums(self) -> dict[str, float]:
        """Return them as an event keeps them."""
        return {
            "count": float(self.count),
            "sum": self.total,
            "squares": self.squares,
            "nonmembers": float(self.nonmembers),
        }


def pooled_auc(groups: Sequence[Moments], confidence: float) -> Estimate:
    """AUC over the members of all groups, each compared with its own non-members.

    The variance is DeLong's in its two parts: that of the members' placements, and that of the non-members',
    for which the variance of a uniform distribution stands, ``1 / 12 m``, since they were not kept.
    Groups are treated as independent; where they share non-members, the second part is added in full.

    Parameters
    ----------
    groups
        Sums over the placements of the members, and how many non-members they were compared with.
    confidence
        Of the interval, which ends at 0 and 1.

    Raises
    ------
    ValueError
        If there are fewer than two members.
    """
    count = sum(group.count for group in groups)
    if count < 2:
        raise ValueError("a spread needs two members")
    area = sum(group.total for group in groups) / count
    spread = max(0.0, sum(group.squares for group in groups) - count * area**2) / (count - 1)
    shared = sum(group.count / count / math.sqrt(12 * group.nonmembers) for group in groups)
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt(spread / count + shared**2)
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))
