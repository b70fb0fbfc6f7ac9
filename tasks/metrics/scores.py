"""Per-sample figures from logits, in float64 and free of overflow and cancellation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError

TINY = 1e-45
"""Keeps the logarithms of :func:`logit_confidence` finite (Carlini et al. 2022, their code)."""


def check_logits(logits: NDArray[np.floating], labels: NDArray[np.int64], where: str = "logits") -> None:
    """Refuse logits that no figure can be computed from.

    Parameters
    ----------
    logits
        ``float [n, K]``.
    labels
        ``int64 [n]``, each below K.
    where
        The logits' origin, for messages.

    Raises
    ------
    ExpungeError
        If the shapes do not fit, a label has no logit, or a logit is NaN or infinite.
    """
    if logits.ndim != 2 or logits.dtype.kind != "f" or logits.shape[1] < 2:
        raise ExpungeError(
            f"{where} holds {logits.dtype} of shape {list(logits.shape)}; "
            "it must hold floats of shape [samples, classes] with 2 classes or more"
        )
    if len(logits) != len(labels):
        raise ExpungeError(
            f"{where} has {len(logits)} rows for {len(labels)} samples; one row a sample is right"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if outside.size:
        row = outside[0]
        raise ExpungeError(
            f"{where} has {logits.shape[1]} columns, but the label in row {row} is {labels[row]}; "
            "one column a class is right"
        )
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise ExpungeError(
            f"{where} holds NaN or infinity in {broken.size} of {len(logits)} rows, the first is row "
            f"{broken[0]}; the model diverged: lower its learning rate"
        )


def cross_entropy(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross-entropy of each sample in nats, ``float64 [n]``.

    The largest logit leaves the sum before the logarithm is taken, so that confident samples keep
    distinct losses: far below 1e-16, where ``log(1 + x)`` would return zero for all of them.

    Raises
    ------
    ExpungeError
        See :func:`check_logits`.
    """
    check_logits(logits, labels)
    shifted = logits.astype(np.float64)
    rows = np.arange(len(shifted))
    top = shifted.argmax(axis=1)
    shifted -= shifted[rows, top, None]
    odds = np.exp(shifted)
    odds[rows, top] = 0.0
    losses: NDArray[np.float64] = np.log1p(odds.sum(axis=1)) - shifted[rows, labels]
    return losses


def logit_confidence(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """φ(x, y) = log p_y − log Σ_{k≠y} p_k of each sample, ``float64 [n]``.

    Computed from max-subtracted logits with 1e-45 inside each logarithm; LiRA, Carlini et al. 2022,
    "Membership inference attacks from first principles", section V.

    Raises
    ------
    ExpungeError
        See :func:`check_logits`.
    """
    check_logits(logits, labels)
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(shifted))
    right = probabilities[rows, labels]
    probabilities[rows, labels] = 0.0
    confidence: NDArray[np.float64] = np.log(right + TINY) - np.log(probabilities.sum(axis=1) + TINY)
    return confidence
