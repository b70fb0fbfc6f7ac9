from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.core.errors import ExpungeError
from tasks.engine import outputs
from tasks.engine.data import Groups
from tasks.engine.predict import accuracy, cross_entropy, logits
from tasks.engine.training import Epoch, fit
from tasks.engine.weights import load
from tests import tiny

DATA = tiny.noise(50)
IMAGES, LABELS = DATA.images.numpy(), DATA.labels.numpy()
ROLES: NDArray[np.str_] = np.array(["retain"] * 20 + ["forget"] * 20 + ["test"] * 10)
GROUPS = Groups(IMAGES, LABELS, ROLES)
HISTORY: list[Epoch] = [{"unlearn/loss": 0.5}, {"unlearn/loss": 0.25}]


def write(folder: Path, model: nn.Module, history: list[Epoch]) -> dict[str, float]:
    return outputs.write(folder, model, tiny.info(), GROUPS, history=history, seconds=1.5)


def test_all_files_are_written_and_hold_what_the_model_says(tmp_path: Path) -> None:
    model = tiny.model()
    metrics = write(tmp_path, model, HISTORY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.csv", "logits.npy", "metrics.json", "weights.json", "weights.safetensors",
    ]  # fmt: skip
    again, _ = load(tmp_path)
    rows = np.load(tmp_path / "logits.npy", allow_pickle=False)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, logits(again, IMAGES))
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_metrics_are_those_of_each_role_and_the_time(tmp_path: Path) -> None:
    model = tiny.model()
    metrics = write(tmp_path, model, HISTORY)
    rows = logits(model, IMAGES)
    assert metrics.pop("time/seconds") == 1.5
    for role in ("retain", "forget", "test"):
        chosen = np.char.equal(ROLES, role)
        assert metrics.pop(f"{role}/acc") == accuracy(rows[chosen], LABELS[chosen])
        assert metrics.pop(f"{role}/loss") == cross_entropy(rows[chosen], LABELS[chosen])
    assert metrics == {}


def test_of_a_forget_set_of_few_no_figure_is_kept_nor_one_that_gives_it_away(tmp_path: Path) -> None:
    """Stage ``train`` tells of retain and forget set together: with the one the other would be known."""
    few = Groups(IMAGES, LABELS, np.where(np.arange(50) == 20, "retain", ROLES))
    metrics = outputs.write(tmp_path, tiny.model(), tiny.info(), few, history=[], seconds=1.5)
    assert set(metrics) == {"time/seconds", "test/acc", "test/loss"}
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_the_history_has_a_row_an_epoch_with_the_documented_columns(tmp_path: Path) -> None:
    model = tiny.model()
    done = fit(model, DATA, tiny.recipe(), seed=0, val=DATA)
    write(tmp_path, model, done.history)
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == "epoch,train/loss,train/acc,val/loss,val/acc,lr,images_per_second"
    assert [int(row.pop("epoch")) for row in rows] == [1, 2, 3]
    assert [{name: float(value) for name, value in row.items()} for row in rows] == done.history


def test_a_methods_own_metrics_are_columns_of_its_history(tmp_path: Path) -> None:
    write(tmp_path, tiny.model(), HISTORY)
    assert (tmp_path / "history.csv").read_text() == "epoch,unlearn/loss\n1,0.5\n2,0.25\n"


def test_no_epochs_leave_the_header_alone(tmp_path: Path) -> None:
    write(tmp_path, tiny.model(), [])
    header = "epoch,train/loss,train/acc,val/loss,val/acc,lr,images_per_second\n"
    assert (tmp_path / "history.csv").read_text() == header


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_without_finite_losses_is_refused_and_nothing_written(tmp_path: Path, value: float) -> None:
    model = tiny.model()
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    with pytest.raises(ExpungeError) as caught:
        write(tmp_path / "train", model, HISTORY)
    assert str(caught.value) == (
        f"the loss on the forget samples is nan: the weights for {tmp_path / 'train'} diverged; "
        "lower the learning rate or the method's strength"
    )
    assert not (tmp_path / "train").exists()
