"""What every stage that makes a model writes."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.core.figures import LEFT_OUT, SHARED
from tasks.core.files import write_json, write_text, write_whole
from tasks.core.processes import place
from tasks.engine.data import Groups
from tasks.engine.predict import accuracy, cross_entropy, logits
from tasks.engine.training import COLUMNS, Epoch
from tasks.engine.weights import Info, store

log = logging.getLogger(__name__)


def write(
    folder: Path,
    model: nn.Module,
    info: Info,
    groups: Groups,
    *,
    history: Sequence[Epoch],
    seconds: float,
) -> dict[str, float]:
    """Write weights, logits on all samples, history and metrics.

    Of several processes that share a training only the main one does.

    Parameters
    ----------
    folder
        The stage's, e.g. ``data/train``.
    model, info
        The trained model and its description.
    groups
        All images, whatever the model was trained on.
    history
        One row an epoch.
    seconds
        Wall-clock time of the training or unlearning itself.

    Returns
    -------
    metrics
        ``<group>/acc`` and ``<group>/loss`` (mean cross-entropy in nats) for each group, ``time/seconds``.
        Where the forget set has fewer than :data:`~tasks.core.figures.SHARED` samples, its figures are left
        out, and those of the retain set: stage ``train`` tells of both together.

    Raises
    ------
    ExpungeError
        If a loss is not finite; nothing is written then.
    """
    if not place().is_main:
        return {}
    rows = logits(model, groups.images)
    metrics = {"time/seconds": seconds}
    untold = ("forget", "retain") if is_small(groups) else ()
    for group in np.unique(groups.names).tolist():
        chosen = groups.names == group
        loss = cross_entropy(rows[chosen], groups.labels[chosen])
        if not math.isfinite(loss):
            raise ExpungeError(
                f"the loss on the {group} samples is {loss}: the weights for {folder} diverged; "
                "lower the learning rate or the method's strength"
            )
        if group not in untold:
            metrics |= {f"{group}/acc": accuracy(rows[chosen], groups.labels[chosen]), f"{group}/loss": loss}
    if untold:
        log.info(LEFT_OUT)
    store(folder, model, info)
    with write_whole(folder / "logits.npy") as file:
        np.save(file, rows, allow_pickle=False)
    write_text(folder / "history.csv", _table(history))
    write_json(folder / "metrics.json", metrics)
    return metrics


def is_small(groups: Groups) -> bool:
    """Whether there is a forget set, of so few samples that no figure of it may be kept."""
    return 0 < int(np.count_nonzero(groups.names == "forget")) < SHARED


def _table(history: Sequence[Epoch]) -> str:
    """CSV with one row an epoch; a header alone when there was none."""
    columns = list(history[0]) if history else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *columns])
    writer.writerows([epoch, *row.values()] for epoch, row in enumerate(history, start=1))
    return text.getvalue()
