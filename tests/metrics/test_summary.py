from __future__ import annotations

import numpy as np
import pytest

from tasks.metrics.attacker import Guesses
from tasks.metrics.summary import Attacked, by_class, forgotten_classes

LABELS = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 2])
ROWS = {
    "forget": np.array([0, 1, 2]), "retain": np.array([3, 4, 5]), "test": np.array([6, 7, 8, 9]),
}  # fmt: skip


def test_a_class_is_forgotten_when_none_of_its_training_samples_is_retained() -> None:
    assert forgotten_classes(LABELS, ROWS).tolist() == [0]


@pytest.mark.parametrize(("forgotten", "expected"), [([0], (0.0, 2 / 3)), ([0, 2], (1 / 3, 1.0)), ([], None)])
def test_accuracy_of_forgotten_classes_and_of_the_others_is_told_apart(
    forgotten: list[int], expected: tuple[float, float] | None
) -> None:
    right = np.ones(10, dtype=np.bool_)
    right[[6, 8]] = False
    none = np.zeros(0, dtype=np.int64)
    guesses = Guesses(none, none)
    found = by_class(
        Attacked(right, np.zeros(0), guesses, 0.0), LABELS, ROWS["test"], np.array(forgotten, int), 0.95
    )
    if expected is None:
        assert found == {}
        return
    keys = ("test/acc_forgotten_classes", "test/acc_other_classes")
    assert tuple(found[key] for key in keys) == pytest.approx(expected)
    for key in keys:
        assert found[f"{key}/low"] <= found[key] <= found[f"{key}/high"]
