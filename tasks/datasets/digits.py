"""scikit-learn's handwritten digits: 1,797 grey images of 8×8, for tests that take seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.core.params import Split
from tasks.datasets import register
from tasks.datasets._reading.decode import resized
from tasks.datasets._reading.still import Decoding
from tasks.samples.image_set import ImageSet
from tasks.samples.pictures import fingerprints_of
from tasks.samples.roles import lowest, rank, share

NAME = "sklearn.datasets.load_digits"
TEST_SHARE = 0.25


@register
def digits(path: Path, split: Split) -> ImageSet:  # noqa: ARG001  (every source takes a path)
    """Return the digits; a fixed, stratified quarter of them is the test part.

    Ids are ``digits/0000`` … by original index. ``path`` is ignored: the images come with scikit-learn.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(np.int64)
    sample_ids = tuple(f"digits/{index:04d}" for index in range(len(labels)))
    ranks = rank("test", 0, sample_ids)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        is_test[lowest(ranks, members, share(TEST_SHARE, len(members)))] = True
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]  # stored as 0 … 16
    return ImageSet(
        images=resized(grey, Decoding.of(split)),
        labels=labels,
        sample_ids=sample_ids,
        sources=tuple(f"{NAME}#{index}" for index in range(len(labels))),
        is_test=is_test,
        classes=tuple(str(name) for name in data.target_names),
        pictures=fingerprints_of(grey),
        row_counts=((NAME, len(labels)),),
    )
