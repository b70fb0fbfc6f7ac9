"""All figures of models under attack, as flat metrics: ``mia/auc``, ``mia/auc/low``, ``mia/auc/high``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.attacker import Guesses
from tasks.metrics.intervals import Estimate, auc, paired_difference, proportion
from tasks.metrics.roc import tpr_at
from tasks.metrics.utility import average_gap, nomus, simultaneous, time_ratio, tug_of_war

RATES = (0.01, 0.001)
"""False positive rates at which the true positive rate is reported."""

Metrics = dict[str, float]
Rows = Mapping[str, NDArray[np.int64]]
"""Row numbers of the samples of each role."""


@dataclass(frozen=True, slots=True)
class Attacked:
    """One model under attack.

    Attributes
    ----------
    right
        ``bool [N]``: whether it classifies each sample of the split right.
    scores
        ``float64 [n]``: the attack's scores of the samples that are compared.
    guesses
        How a learned threshold on the scores fares.
    seconds
        What making the model took.
    """

    right: NDArray[np.bool_]
    scores: NDArray[np.float64]
    guesses: Guesses
    seconds: float


def of_model(model: Attacked, rows: Rows, is_member: NDArray[np.bool_], confidence: float) -> Metrics:
    """Figures of one model: accuracies by role, what the attack finds, seconds."""
    metrics: Metrics = {}
    for role, found in rows.items():
        metrics |= flat(f"{role}/acc", proportion(float(model.right[found].sum()), len(found), confidence))
    metrics |= flat("mia/acc", model.guesses.accuracy(confidence))
    area = auc(model.scores, is_member, confidence)
    metrics |= flat("mia/auc", area)
    metrics["mia/auc_two_sided"] = max(area.value, 1 - area.value)
    for rate in RATES:
        metrics |= flat(f"mia/tpr_at_{rate}", tpr_at(rate, model.scores, is_member, confidence))
    metrics["time/seconds"] = model.seconds
    return metrics


def forgotten_classes(labels: NDArray[np.int64], rows: Rows) -> NDArray[np.int64]:
    """Return the classes of which every training sample is forgotten; ``labels`` is ``int64 [N]``."""
    return np.setdiff1d(labels[rows["forget"]], labels[rows["retain"]])


def by_class(
    model: Attacked,
    labels: NDArray[np.int64],
    test: NDArray[np.int64],
    forgotten: NDArray[np.int64],
    confidence: float,
) -> Metrics:
    """Accuracy on test of the classes that are forgotten as a whole and of the others; nothing if none is."""
    if not forgotten.size:
        return {}
    is_forgotten = np.isin(labels[test], forgotten)
    metrics: Metrics = {}
    for key, found in (("forgotten", test[is_forgotten]), ("other", test[~is_forgotten])):
        if found.size:
            right = proportion(float(model.right[found].sum()), len(found), confidence)
            metrics |= flat(f"test/acc_{key}_classes", right)
    return metrics


def of_pair(result: Attacked, reference: Attacked, rows: Rows, confidence: float) -> Metrics:
    """Figures of the result against the retrained model, from differences on the same samples."""
    roles = ("forget", "retain", "test")

    def accuracy(role: str, parts: int) -> Estimate:
        change = result.right[rows[role]].astype(float) - reference.right[rows[role]]
        return paired_difference(change, simultaneous(confidence, parts))

    def attack(parts: int) -> Estimate:
        made = result.guesses.made
        change = (result.guesses.right - reference.guesses.right) / np.maximum(made, 1)
        return paired_difference(change, simultaneous(confidence, parts), weights=made.astype(float))

    both = simultaneous(confidence, 2)
    test = result.right[rows["test"]]
    test_accuracy = proportion(float(test.sum()), len(test), both)
    return {
        **flat("gap", average_gap([*(accuracy(role, 4) for role in roles), attack(4)])),
        **flat("tow", tug_of_war([accuracy(role, 3) for role in roles])),
        **flat("tow_mia", tug_of_war([attack(3), accuracy("retain", 3), accuracy("test", 3)])),
        **flat("nomus", nomus(test_accuracy, result.guesses.accuracy(both))),
        "time/ratio": time_ratio(reference.seconds, result.seconds),
    }


def flat(key: str, estimate: Estimate) -> Metrics:
    """An estimate as three metrics."""
    return {key: estimate.value, f"{key}/low": estimate.low, f"{key}/high": estimate.high}
