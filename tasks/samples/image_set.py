"""Images, with all that the other rooms know of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.samples.mapped import Images, taken


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images, decoded once.

    Attributes
    ----------
    images
        ``uint8 [N, C, H, W]`` with C = 1 or 3; in a file where they would be too many for the memory.
    labels
        ``int64 [N]``, class numbers ``0 … len(classes) - 1``.
    sample_ids
        N unique, stable names: the same image keeps its id when others leave or the order changes.
    sources
        N references into the source, e.g. ``train-00000-of-00001.parquet#17`` or a file path.
    is_test
        ``bool [N]``, true for the source's own test part; nowhere if it has none.
    classes
        Class names in order of class number.
    pictures
        ``uint8 [N, 32]``, fingerprints of the pictures before they were scaled
        (:mod:`tasks.samples.pictures`).
    row_counts
        Files that the training part is read from, in order, with the number of rows of each: of all its rows,
        also of those that were erased. Empty where the source has no rows.
    is_val
        ``bool [N]``, true for the source's own validation part; None if it has none.
    subjects
        N tuples of references to the people that each sample is of; None if the source does not tell. In
        memory alone: what is written names them by keyed digests.
    has_test
        Whether the source has a test part, be it that all of it was erased; if not, one is taken.
    """

    images: Images
    labels: NDArray[np.int64]
    sample_ids: tuple[str, ...]
    sources: tuple[str, ...]
    is_test: NDArray[np.bool_]
    classes: tuple[str, ...]
    pictures: NDArray[np.uint8]
    row_counts: tuple[tuple[str, int], ...] = ()
    is_val: NDArray[np.bool_] | None = None
    subjects: tuple[tuple[str, ...], ...] | None = None
    has_test: bool = True

    def subset(self, rows: NDArray[np.int64]) -> ImageSet:
        """Return the set of the given rows, in the given order; all classes stay."""
        if np.array_equal(rows, np.arange(len(self.labels))):
            return self
        return ImageSet(
            images=taken(self.images, rows),
            labels=self.labels[rows],
            sample_ids=tuple(self.sample_ids[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            is_test=self.is_test[rows],
            classes=self.classes,
            pictures=self.pictures[rows],
            row_counts=self.row_counts,
            is_val=None if self.is_val is None else self.is_val[rows],
            subjects=None if self.subjects is None else tuple(self.subjects[row] for row in rows),
            has_test=self.has_test,
        )
