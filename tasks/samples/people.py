"""Whose the samples are, so that a person's images stay on one side of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Subjects = Sequence[tuple[str, ...]]


def groups_of(subjects: Subjects) -> NDArray[np.int64]:
    """Group samples that share a person, directly or through others.

    Parameters
    ----------
    subjects
        N tuples of references, several where a sample shows several people.

    Returns
    -------
    NDArray[np.int64]
        ``[N]``, the number of each sample's group; a sample of nobody is a group of its own.
    """
    number: dict[str, int] = {}
    edges = [
        (row, number.setdefault(name, len(number))) for row, names in enumerate(subjects) for name in names
    ]
    rows, people = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    size = len(subjects) + len(number)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, len(subjects) + people)), shape=(size, size))
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1][: len(subjects)].astype(
        np.int64
    )
    return np.unique(groups, return_inverse=True)[1]


def choose(
    groups: NDArray[np.int64],
    ranks: NDArray[np.uint64],
    labels: NDArray[np.int64],
    candidates: NDArray[np.int64],
    wanted: NDArray[np.int64],
    spare: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Take whole groups, in the order of their ranks, so that each class has about as many as are wanted.

    A group is taken if that brings the counts of all classes nearer to what is wanted, by least squares.
    Where every group is one sample, these are those of lowest rank of each class. When a group leaves, the
    others are still asked in the same order.

    Parameters
    ----------
    groups, ranks, labels
        ``[N]`` of all samples. A group's rank is the lowest of its members'.
    candidates
        Row numbers of the samples that may be taken; the other members of a group stay where they are.
    wanted, spare
        ``[K]``, how many of each class are to be taken, and how many may be at most.

    Returns
    -------
    NDArray[np.int64]
        Row numbers, ascending.
    """
    lowest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lowest, groups, ranks)
    order = candidates[np.lexsort((candidates, groups[candidates], lowest[groups[candidates]]))]
    missing, left = wanted.astype(np.int64).copy(), spare.astype(np.int64).copy()
    taken = []
    for members in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        counts = np.bincount(labels[members], minlength=len(wanted))
        if not members.size or np.any(counts > left):
            continue
        if ((missing - counts) ** 2).sum() < (missing**2).sum():
            missing, left = missing - counts, left - counts
            taken.append(members)
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, dtype=np.int64)


def on_both_sides(subjects: Subjects, one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """Number of samples of ``one`` of which some person is in ``other``, too; both are ``bool [N]``."""
    seen = {name for row in np.flatnonzero(other).tolist() for name in subjects[row]}
    return sum(not seen.isdisjoint(subjects[row]) for row in np.flatnonzero(one).tolist())
