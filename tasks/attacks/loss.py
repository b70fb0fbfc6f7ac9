"""The loss attack: a sample on which the model's loss is low was probably trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.attacks import Samples, register
from tasks.metrics.scores import cross_entropy


@register
def loss(samples: Samples) -> NDArray[np.float64]:
    """Score samples by their negative cross-entropy.

    The attack of the NeurIPS 2023 unlearning challenge's starting kit; its accuracy is that of
    :func:`tasks.metrics.attacker.guess` on these scores.
    """
    return -cross_entropy(samples.logits, samples.labels)
