from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.params import Augment, Recipe
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.training import Epoch, Fit, fit, ignore
from tests import tiny


class Killed(BaseException):
    """What an interrupted training sees."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(
    recipe: Recipe,
    *,
    kill_after: int | None = None,
    identity: str = "a",
    checkpoint: bool = True,
    size: int = 8,
    told: Any = None,
) -> tuple[dict[str, torch.Tensor], Fit]:
    """Train a fresh model from the checkpoint, if there is one; Killed is raised after an epoch."""
    model = tiny.model(size=size)

    def on_epoch(epoch: int, row: Epoch) -> None:
        (told or ignore)(epoch, row)
        if epoch == kill_after:
            raise Killed

    done = fit(
        model, tiny.noise(50, size=size), recipe, seed=5, val=tiny.noise(20, size=size, seed=1),
        checkpoint=Checkpoint("train", {"of": identity}) if checkpoint else None, on_epoch=on_epoch,
    )  # fmt: skip
    return tiny.state(model), done


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize(
    "augment", [Augment(), Augment(flip=True, crop=2, cutout=2)], ids=["plain", "augmented"]
)
@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_training_killed_after_an_epoch_ends_with_the_same_bits(
    schedule: str, augment: Augment, epoch: int
) -> None:
    recipe = tiny.recipe(epochs=4, schedule=schedule, augment=augment)
    whole, expected = train(recipe, checkpoint=False)
    with pytest.raises(Killed):
        train(recipe, kill_after=epoch)
    resumed, done = train(recipe)
    assert tiny.equal(resumed, whole)
    assert tiny.untimed(done.history) == tiny.untimed(expected.history)  # loss, accuracy, lr


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "schedule": "cosine", "warmup_epochs": 1.5},
        {"schedule": "cosine_restarts", "warmup_epochs": 1, "restart_epochs": 1, "restart_mult": 2},
        {"optimizer": "adamw", "schedule": "constant", "accumulate": 2},
        {"schedule": "cosine", "amp": "bfloat16"},
        {"augment": Augment(flip="alternating"), "start_scale": 0.6, "full_scale": 0.8},
    ],
)
@pytest.mark.parametrize("epoch", [1, 3])
def test_so_it_does_with_any_optimizer_schedule_and_precision(changes: dict[str, Any], epoch: int) -> None:
    recipe = tiny.recipe(epochs=4, **changes)
    whole, expected = train(recipe, checkpoint=False, size=16)
    with pytest.raises(Killed):
        train(recipe, kill_after=epoch, size=16)
    resumed, done = train(recipe, size=16)
    assert tiny.equal(resumed, whole)
    assert tiny.untimed(done.history) == tiny.untimed(expected.history)


def test_a_training_killed_twice_ends_with_the_same_bits() -> None:
    whole, _ = train(tiny.recipe(epochs=5), checkpoint=False)
    for epoch in (1, 3):
        with pytest.raises(Killed):
            train(tiny.recipe(epochs=5), kill_after=epoch)
    resumed, _ = train(tiny.recipe(epochs=5))
    assert tiny.equal(resumed, whole)


def test_a_resumed_training_takes_only_the_missing_epochs_and_tells_of_all() -> None:
    with pytest.raises(Killed):
        train(tiny.recipe(epochs=3), kill_after=2)
    seconds = Checkpoint("train", {"of": "a"}).load()["seconds"]  # type: ignore[index]
    told: list[tuple[int, Epoch]] = []
    _, done = train(tiny.recipe(epochs=3), told=lambda epoch, row: told.append((epoch, row)))
    assert told == list(enumerate(done.history, start=1))
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert done.seconds > seconds > 0  # the time before the kill counts


def test_a_finished_training_is_not_repeated() -> None:
    whole, done = train(tiny.recipe())
    again, redone = train(tiny.recipe())
    assert tiny.equal(again, whole)
    assert redone.seconds == done.seconds


def test_a_checkpoint_of_another_training_is_ignored() -> None:
    whole, expected = train(tiny.recipe(), checkpoint=False)
    with pytest.raises(Killed):
        train(tiny.recipe(lr=0.5), kill_after=2, identity="b")
    afresh, done = train(tiny.recipe())
    assert tiny.equal(afresh, whole)
    assert tiny.untimed(done.history) == tiny.untimed(expected.history)


def test_a_damaged_checkpoint_makes_the_training_start_over() -> None:
    whole, _ = train(tiny.recipe(), checkpoint=False)
    with pytest.raises(Killed):
        train(tiny.recipe(), kill_after=2)
    path = Checkpoint("train", {}).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told: list[int] = []
    afresh, _ = train(tiny.recipe(), told=lambda epoch, _: told.append(epoch))
    assert tiny.equal(afresh, whole)
    assert told == [1, 2, 3]


CHILD = """
import sys
import torch
from tasks.engine.checkpoint import Checkpoint
from tasks.engine.training import fit
from tests import tiny
from tests.engine.test_resume import LONG

torch.set_num_threads(int(sys.argv[1]))
fit(tiny.model(), tiny.noise(50), LONG, seed=5, val=tiny.noise(20, seed=1),
    checkpoint=Checkpoint("train", {"of": "a"}), on_epoch=lambda epoch, _: print(epoch, flush=True))
"""
LONG = tiny.recipe(epochs=25, augment=Augment(flip=True, crop=2))


def test_a_process_killed_by_the_system_is_resumed_by_another_bit_for_bit(tmp_path: Path) -> None:
    whole, expected = train(LONG, checkpoint=False)
    child = subprocess.Popen(
        (sys.executable, "-c", CHILD, str(torch.get_num_threads())),
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    with child, child.stdout as lines:
        for line in lines:
            if line == "3\n":
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL
    told: list[int] = []
    resumed, done = train(LONG, told=lambda epoch, _: told.append(epoch))
    assert tiny.equal(resumed, whole)
    assert tiny.untimed(done.history) == tiny.untimed(expected.history)
