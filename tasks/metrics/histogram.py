"""Histograms of the loss, on one logarithmic axis for all models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 30
"""About as many bins: finer ones show the chance in a few hundred samples, not their distribution."""
SMALLEST = 1e-12
"""The axis begins no lower: smaller losses say nothing more."""


class LossCounts(NamedTuple):
    """Samples a bin: ``edges [b + 1]`` ascending and positive, counts ``[b]`` of each side."""

    edges: NDArray[np.float64]
    forget: NDArray[np.float64]
    test: NDArray[np.float64]


def loss_counts(
    losses: Mapping[str, NDArray[np.float64]], is_member: NDArray[np.bool_]
) -> dict[str, LossCounts]:
    """Count the losses of members and non-members under each model.

    The axis is made of whole decades and holds at least 99 % of all losses; those beyond are counted
    in the bins at its ends.

    Parameters
    ----------
    losses
        ``float64 [n]`` for each model.
    is_member
        ``bool [n]``.
    """
    everything = np.concatenate(list(losses.values()))
    low, high = np.quantile(everything, [0.005, 0.995], method="nearest").clip(SMALLEST)
    first = math.floor(math.log10(low))
    last = max(math.ceil(math.log10(high)), first + 1)
    decades = last - first
    edges = np.logspace(first, last, decades * max(1, round(BINS / decades)) + 1)

    def count(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.histogram(values.clip(edges[0], edges[-1]), edges)[0].astype(np.float64)

    return {
        name: LossCounts(edges, count(loss[is_member]), count(loss[~is_member]))
        for name, loss in losses.items()
    }
