"""Which samples an attack is measured on: as many non-members as members of every class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError


def pair_up(
    labels: NDArray[np.int64],
    members: NDArray[np.int64],
    nonmembers: NDArray[np.int64],
    seed: int,
    *,
    against: str = "test",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Choose the samples that an attack is measured on, by :func:`match_classes`.

    Parameters
    ----------
    labels
        ``int64 [N]``, class numbers of all samples.
    members, nonmembers
        Row numbers of the candidates.
    seed, against
        As for :func:`match_classes`, and so are the errors.

    Returns
    -------
    tuple
        Row numbers ``int64 [2n]``, members first, and ``bool [2n]``: which are members.
    """
    first, second = match_classes(labels[members], labels[nonmembers], seed, against=against)
    rows = np.concatenate([members[first], nonmembers[second]])
    return rows, np.arange(len(rows)) < len(first)


def match_classes(
    members: NDArray[np.int64], nonmembers: NDArray[np.int64], seed: int, *, against: str = "test"
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw equal numbers of members and non-members of each class.

    A class keeps as many samples a side as its smaller side has; the larger side is drawn from
    without replacement. Otherwise an attack could tell the sides apart by how hard their classes are.

    Parameters
    ----------
    members, nonmembers
        Class numbers ``int64 [n]`` and ``int64 [m]``.
    seed
        The same seed draws the same samples.
    against
        Role of the non-members, for messages.

    Returns
    -------
    tuple
        Two arrays of positions of equal length, ascending: into ``members`` and into ``nonmembers``.

    Raises
    ------
    ExpungeError
        If no class has both a member and a non-member.
    """
    random = np.random.default_rng(seed)
    sides: tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]] = ([], [])
    for label in np.intersect1d(members, nonmembers):
        found = [np.flatnonzero(labels == label) for labels in (members, nonmembers)]
        count = min(map(len, found))
        for side, positions in zip(sides, found, strict=True):
            side.append(random.permutation(positions)[:count])
    if not sides[0]:
        raise ExpungeError(
            f"no {against} sample is of the same class as a forget sample; the attack compares samples of "
            f"the same classes, so the {against} part needs some of each class that is to be forgotten"
        )
    return np.sort(np.concatenate(sides[0])), np.sort(np.concatenate(sides[1]))
