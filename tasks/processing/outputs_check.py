"""What the accuracy of strange weights tells of them: whether they see the images as they should."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

GAIN = 0.1
"""Gain of accuracy by another order of the outputs that is told."""

FEWEST = 10
"""Images more that have to be right by it."""

ABOVE = 0.1
"""Share of the way from chance to all right that counts as near chance."""


def warnings(
    logits_NK: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]
) -> Iterator[str]:
    """Tell of an accuracy near chance, and of another order of the outputs that fits far better.

    Parameters
    ----------
    logits_NK, labels
        Of validation images.
    classes
        Their names, in the order in which the outputs are taken to be.
    """
    count = len(labels)
    right = int((logits_NK.argmax(axis=1) == labels).sum())
    chance = float(np.bincount(labels, minlength=len(classes)).max()) / count
    order = better_order(logits_NK, labels)
    if order is not None:
        named: list[str] = [""] * len(classes)
        for label, output in enumerate(order):
            named[output] = classes[label]
        shown = ",".join(named) if len(classes) <= 20 else "…"
        yield (
            f"accuracy on val is {right / count:.3f}, and would be far better if the outputs were in another "
            f"order than data/split/classes.json; if they are: --classes {shown}"
        )
    elif right / count < chance + max(2 * (chance * (1 - chance) / count) ** 0.5, ABOVE * (1 - chance)):
        yield (
            f"accuracy on val is {right / count:.3f}, near chance ({chance:.3f}): the order of the classes "
            "or the normalisation may differ from that of the training; pixels arrive as "
            "(value - 127.5) / 64, see docs/own-model.md"
        )


def better_order(logits_NK: NDArray[np.float32], labels: NDArray[np.int64]) -> list[int] | None:
    """Return the output of each class by which far more images are classified right; ``None`` if none is."""
    classes = logits_NK.shape[1]
    hits = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(hits, (labels, logits_NK.argmax(axis=1)), 1)
    of_class, output = linear_sum_assignment(-hits)
    gained = int(hits[of_class, output].sum() - np.trace(hits))
    return output.tolist() if gained >= max(FEWEST, GAIN * len(labels)) else None
