"""Which samples have the same picture: pixel for pixel, or as one that was saved again.

A request names samples, not pictures. Whoever takes it has to know what else of the data shows the same:
a file that lies there twice, or once more in another compression.

Exact copies have equal pixels. Near ones differ as a picture differs that was compressed again, hardly
brightened or rounded to fewer greys: by at most :data:`LARGEST` grey levels (root mean square), and by at
most 1/:data:`CONTRAST` of the picture's contrast, or one blank page would be the copy of another. What was
cropped, shifted, mirrored or turned is not told: at 28×28 or 32×32 pixels different pictures are as near to
each other as that. ``docs/own-images.md`` has the measurements behind the two limits.

Not all pairs are compared. Candidates come from a perceptual hash, the signs of the 63 lowest frequencies of
the discrete cosine transform [1]_: the hashes are sorted in several orders of their bits, and each is
compared with the few that follow it [2]_. So the cost is that of sorting.

References
----------
.. [1] C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", Hagenberg 2010, 3.2.1
   (there about the median instead of zero).
.. [2] D. Ravichandran, P. Pantel, E. Hovy, "Randomized Algorithms and NLP: Using Locality Sensitive Hash
   Functions for High Speed Noun Clustering", ACL 2005, section 3.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tasks.core.files import write_text
from tasks.samples.mapped import Images
from tasks.samples.table import COPIES, COPIES_HEAD

LARGEST = 8
"""Root mean square of the differences up to which two pictures may be the same, in grey levels."""

CONTRAST = 6
"""As which part of the picture's standard deviation it may be at most."""

FREQUENCIES = 8
"""Of the transform, in each direction."""

ORDERS = 16
"""In how many orders of their bits the hashes are sorted."""

FOLLOWING = 8
"""With how many that follow each is compared."""

FLIPPED = 12
"""Bits in which the hashes of a pair may differ that is compared by its pixels."""

STRETCHES = 32
"""Into how many stretches of pixels a picture is cut, whose sums tell most pairs apart."""

THREADS = 2
"""Blocks that are worked on at once: what numpy does with them takes no lock, and more would cost memory."""

BLOCK = 2**22
"""Pixels that are worked on at once."""


def find_copies(images: Images) -> tuple[list[int], list[int]]:
    """Group pictures that are the same, and those that are nearly the same.

    Parameters
    ----------
    images
        ``uint8 [N, C, H, W]``.

    Returns
    -------
    same, alike
        The number of each picture's group, counted from 1 in the order of the pictures; 0 if it is alone.
        Copies of copies are of one group, so near ones at the ends of a chain may differ by more.
    """
    first: dict[bytes, int] = {}
    same = np.array([first.setdefault(hashlib.sha256(each).digest(), row) for row, each in enumerate(images)])
    rows = np.fromiter(first.values(), dtype=np.int64)
    left, right = _near(images, rows)
    edges = np.concatenate([same, left]), np.concatenate([np.arange(len(images)), right])
    graph = coo_array((np.ones(len(edges[0]), dtype=np.bool_), edges), shape=(len(images), len(images)))
    return _numbered(same), _numbered(connected_components(graph, directed=False)[1])


def write_copies(sample_ids: Sequence[str], same: Sequence[int], alike: Sequence[int], folder: Path) -> None:
    """Write the groups of the samples that have copies beside the images of a split, whole."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COPIES_HEAD.split(","))
    writer.writerows(row for row in zip(sample_ids, same, alike, strict=True) if row[2])
    write_text(folder / COPIES, text.getvalue())


def _numbered(groups: NDArray[np.integer]) -> list[int]:
    """Number groups of two and more by their first member; 0 for whoever is alone."""
    alone = np.bincount(groups)[groups] < 2
    numbers: dict[int, int] = {}
    return [
        0 if is_alone else numbers.setdefault(group, len(numbers) + 1)
        for group, is_alone in zip(groups.tolist(), alone.tolist(), strict=True)
    ]


def _near(images: Images, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of rows, of which the first is the smaller, that are nearly the same."""
    size = images[0].size
    signs, variances, sums = _looks(images, rows)
    pairs = _distinct(_candidates(signs), len(rows))
    pairs = pairs[:, _may_be_near(sums, pairs, size)]
    is_near = np.zeros(pairs.shape[1], dtype=np.bool_)

    def compare(block: slice) -> None:
        left, right = (images[rows[side[block]]].reshape(-1, size).astype(np.int16) for side in pairs)
        apart = (left - right).astype(np.int32)
        squares = np.einsum("pi,pi->p", apart, apart, dtype=np.int64)
        contrast = np.minimum(*(variances[side[block]] for side in pairs))
        # in whole numbers, so that every machine finds the same
        is_near[block] = (squares <= LARGEST**2 * size) & (squares * CONTRAST**2 * size <= contrast)

    _each(compare, _blocks(pairs.shape[1], size))
    left, right = rows[pairs[:, is_near]]
    return left, right


def _may_be_near(sums: NDArray[np.int32], pairs: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Leave out pairs whose sums of pixels already differ too much: far fewer numbers than the pixels.

    By the inequality of Cauchy and Schwarz the squared difference of two sums of n pixels is at most n times
    the sum of the pixels' squared differences.
    """
    longest = -(-size // sums.shape[1]) + 1
    may = np.empty(pairs.shape[1], dtype=np.bool_)
    for block in _blocks(len(may), sums.shape[1]):
        left, right = (sums[side[block]] for side in pairs)
        apart = (left - right).astype(np.int64)
        may[block] = np.einsum("ps,ps->p", apart, apart) <= LARGEST**2 * size * longest
    return may


def _looks(
    images: Images, rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int32]]:
    """Signs of the lowest frequencies, N² times the variance, and sums of pixels, of the pictures of rows."""
    *_, height, width = images.shape
    size = images[0].size
    starts = np.unique(np.arange(STRETCHES) * size // STRETCHES)
    stretches = np.empty((len(rows), len(starts)), dtype=np.int32)
    upright, across = _cosines(height), _cosines(width)
    signs = np.empty((len(rows), FREQUENCIES**2 - 1), dtype=np.bool_)
    variances = np.empty(len(rows), dtype=np.int64)

    def look(block: slice) -> None:
        pixels = images[rows[block]].astype(np.float64)
        grey = pixels.sum(axis=1)
        waves = upright @ grey @ across.T
        signs[block] = waves.reshape(len(pixels), -1)[:, 1:] > 0
        sums, squares = grey.sum(axis=(1, 2)), (pixels**2).sum(axis=(1, 2, 3))
        variances[block] = size * squares.astype(np.int64) - sums.astype(np.int64) ** 2
        stretches[block] = np.add.reduceat(pixels.reshape(-1, size), starts, axis=1)

    _each(look, _blocks(len(rows), size))
    return signs, variances, stretches


def _cosines(length: int) -> NDArray[np.float64]:
    """Waves of the transform as whole numbers: sums of such are exact, in whatever order they are made."""
    turns = (2 * np.arange(length) + 1) * np.arange(FREQUENCIES)[:, None] / (2 * length)
    waves: NDArray[np.float64] = np.rint(1024 * np.cos(np.pi * turns))
    return waves


def _candidates(signs: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Pairs of positions, ``int64 [2, n]``, the smaller first, whose hashes differ in few bits."""
    hashes = _packed(signs)
    for turn in range(ORDERS):
        order = np.argsort(_packed(np.roll(signs, turn * signs.shape[1] // ORDERS, axis=1)), kind="stable")
        for step in range(1, FOLLOWING + 1):
            left, right = order[:-step], order[step:]
            few = np.bitwise_count(hashes[left] ^ hashes[right]) <= FLIPPED
            pair = left[few], right[few]
            yield np.stack([np.minimum(*pair), np.maximum(*pair)])


def _distinct(pairs: Iterable[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Pairs ``int64 [2, n]`` of ``count`` positions, each once, in ascending order."""
    numbers = [left * count + right for left, right in pairs]
    found = np.sort(np.concatenate(numbers)) if numbers else np.empty(0, dtype=np.int64)
    once = np.diff(found, prepend=-1) > 0  # np.unique makes a table of hashes, which takes four times as long
    return np.stack(np.divmod(found[once], max(1, count)))


def _packed(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    padded = np.pad(signs, ((0, 0), (0, 64 - signs.shape[1])))
    return np.packbits(padded, axis=1).view(">u8")[:, 0].astype(np.uint64)


def _each(work: Callable[[slice], None], blocks: Iterable[slice]) -> None:
    """Do blocks side by side; each fills its own part of what is made."""
    with ThreadPoolExecutor(THREADS) as pool:
        deque(pool.map(work, blocks), maxlen=0)


def _blocks(count: int, size: int) -> Iterator[slice]:
    step = max(1, BLOCK // size)
    return (slice(start, start + step) for start in range(0, count, step))
