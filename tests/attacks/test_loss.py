from __future__ import annotations

import numpy as np

from tasks.attacks import ATTACKS, Samples
from tasks.metrics.intervals import auc
from tasks.metrics.scores import cross_entropy


def test_the_attack_is_chosen_by_its_file_name_and_scores_low_losses_high() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(50, 4)), random.integers(4, size=50)
    scores = ATTACKS.get("loss")(Samples(logits, labels))
    assert scores.argmax() == cross_entropy(logits, labels).argmin()


def test_a_memorised_half_is_found() -> None:
    random = np.random.default_rng(1)
    logits, labels = random.normal(size=(600, 4)), random.integers(4, size=600)
    is_member = np.arange(600) < 300
    logits[is_member, labels[is_member]] += 2
    assert auc(ATTACKS.get("loss")(Samples(logits, labels)), is_member, 0.95).low > 0.7
