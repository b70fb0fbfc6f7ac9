"""What every stage that makes a model writes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tasks.engine.predict import accuracy, cross_entropy, logits
from tasks.engine.training import COLUMNS, Epoch
from tasks.engine.weights import Info, store
from tasks.errors import ExpungeError
from tasks.files import write_json, write_text, write_whole


def write(
    folder: Path,
    model: nn.Module,
    info: Info,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    roles: Sequence[str] | NDArray[np.str_],
    *,
    history: Sequence[Epoch],
    seconds: float,
) -> dict[str, float]:
    """Write weights, logits on all samples, history and metrics.

    Parameters
    ----------
    folder
        The stage's, e.g. ``data/train``.
    model, info
        The trained model and its description.
    images, labels, roles
        ``uint8 [N, C, H, W]``, ``int64 [N]`` and N names of groups such as ``retain`` or ``test``.
    history
        One row an epoch.
    seconds
        Wall-clock time of the training or unlearning itself.

    Returns
    -------
    metrics
        ``<role>/acc`` and ``<role>/loss`` (mean cross-entropy in nats) for each role, ``time/seconds``.

    Raises
    ------
    ExpungeError
        If a loss is not finite; nothing is written then.
    """
    rows = logits(model, images)
    groups = np.asarray(roles)
    metrics = {"time/seconds": seconds}
    for role in sorted(set(groups.tolist())):
        chosen = groups == role
        metrics[f"{role}/acc"] = accuracy(rows[chosen], labels[chosen])
        metrics[f"{role}/loss"] = loss = cross_entropy(rows[chosen], labels[chosen])
        if not math.isfinite(loss):
            raise ExpungeError(
                f"the loss on the {role} samples is {loss}: the weights for {folder} diverged; "
                "lower the learning rate or the method's strength"
            )
    store(folder, model, info)
    with write_whole(folder / "logits.npy") as file:
        np.save(file, rows, allow_pickle=False)
    write_text(folder / "history.csv", _table(history))
    write_json(folder / "metrics.json", metrics)
    return metrics


def _table(history: Sequence[Epoch]) -> str:
    """CSV with one row an epoch; a header alone when there was none."""
    columns = list(history[0]) if history else COLUMNS
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *columns])
    writer.writerows([epoch, *row.values()] for epoch, row in enumerate(history, start=1))
    return text.getvalue()
