"""Membership inference attacks: one file an attack, each a function from samples to scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.plugins import Registry


@dataclass(frozen=True, slots=True)
class Samples:
    """What an attacker sees of one model on n samples.

    Attributes
    ----------
    logits
        ``float [n, K]``: the attacked model's logits.
    labels
        ``int64 [n]``: true classes.
    """

    logits: NDArray[np.floating]
    labels: NDArray[np.int64]


Attack = Callable[[Samples], NDArray[np.float64]]
"""``attack(samples)`` returns scores ``float64 [n]``; the higher, the more likely a member.

An attack sees no membership: what its scores are worth (accuracy, AUC, ROC, intervals) is measured
by the room's own parts, alike for every attack.
"""

ATTACKS: Registry[Attack] = Registry("attacks")
register = ATTACKS.register


def attack(name: str, samples: Samples) -> NDArray[np.float64]:
    """Return the scores of an attack by its name, ``float64 [n]``.

    Raises
    ------
    ExpungeError
        If there is no such attack, or its scores are not n finite numbers.
    """
    scores = np.asarray(ATTACKS.get(name)(samples), dtype=np.float64)
    if scores.shape != samples.labels.shape or not np.isfinite(scores).all():
        raise ExpungeError(f"mia.attack: {name} must return one finite number for each sample")
    return scores
