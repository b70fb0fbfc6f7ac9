"""How close a result is to the retrained reference, and how useful both are.

Figures over several accuracies have simultaneous intervals: each of the k parts is given the
confidence 1 − (1 − c)/k (Bonferroni), and the figure's ends follow from the ends of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.intervals import Estimate


def hits(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the largest logit is the label's, ``bool [n]``; the first of equal ones counts."""
    right: NDArray[np.bool_] = logits.argmax(axis=1) == labels
    return right


def simultaneous(confidence: float, parts: int) -> float:
    """Confidence that each of so many parts needs for all to hold together with ``confidence``."""
    return 1 - (1 - confidence) / parts


def average_gap(differences: list[Estimate]) -> Estimate:
    """Mean distance from the reference in forget, retain, test and MIA accuracy.

    Fan et al. 2024, "SalUn". Each difference is result minus reference.
    """
    distances = [_distance(difference) for difference in differences]
    return _by_end(lambda ends: sum(ends) / len(ends), distances)


def tug_of_war(differences: list[Estimate]) -> Estimate:
    """Product of 1 − distance from the reference; 1 is equal.

    Zhao et al. 2024 (RUM): over forget, retain and test accuracy (ToW), or with the forget accuracy
    replaced by the MIA accuracy (ToW-MIA).
    """
    value, low, high = _by_end(lambda ends: prod(1 - end for end in ends), list(map(_distance, differences)))
    return Estimate(value, high, low)


def nomus(test: Estimate, mia: Estimate) -> Estimate:
    """Mean of test accuracy and of how blind the attack is: TA/2 + (1 − 2·|MIA − 0.5|)/2.

    Choi & Na 2023, "Towards machine unlearning benchmarks"; 1 is best.
    """
    value, low, high = _distance(Estimate(*(end - 0.5 for end in mia)))
    blind = Estimate(1 - 2 * value, 1 - 2 * high, 1 - 2 * low)
    return _by_end(lambda ends: sum(ends) / 2, [test, blind])


def time_ratio(retrain: float, unlearn: float) -> float:
    """Seconds of retraining for each second of unlearning; less than a millisecond counts as one."""
    return retrain / max(unlearn, 1e-3)


def _distance(difference: Estimate) -> Estimate:
    """Absolute value: its interval begins at zero where the difference's holds zero."""
    value, low, high = difference
    return Estimate(abs(value), max(0.0, low, -high), max(abs(low), abs(high)))


def _by_end(combine: Callable[[tuple[float, ...]], float], parts: list[Estimate]) -> Estimate:
    """Combine the values, the low ends and the high ends, each among themselves."""
    return Estimate(*(combine(ends) for ends in zip(*parts, strict=True)))
