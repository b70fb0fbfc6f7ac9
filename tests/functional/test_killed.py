"""Stages that are killed: they resume, and two never write one folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.files import only_writer
from tests.flows.project import alive, until
from tests.functional.conftest import FirstRun
from tests.functional.repository import Repository

TRAIN = ("dvc", "repro", "--single-item", "--force", "train")
"""Trains once more what the first run has trained, so that the outcome is known."""


@pytest.fixture
def training(repository: Repository) -> Iterator[subprocess.Popen[str]]:
    """DVC, with the stage train between two of its epochs."""
    with repository.start(*TRAIN) as process:
        try:
            wait_for_an_epoch(repository)
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_an_epoch(repository: Repository) -> None:
    until(lambda: checkpoint(repository).exists(), seconds=120, what="the first checkpoint")


def checkpoint(repository: Repository) -> Path:
    return repository.root / ".expunge/checkpoints/train.ckpt"


def trainer(repository: Repository) -> int:
    return int((repository.root / ".expunge/locks/data-train.pid").read_text())


def outcome(repository: Repository) -> dict[str, Any]:
    """Digest of the weights, and the history without the speed."""
    rows = (repository.root / "data/train/history.csv").read_text().splitlines()
    sha256 = repository.json("data/train/weights.json")["sha256"]
    return {"sha256": sha256, "history": [row.rpartition(",")[0] for row in rows]}


def test_a_trainer_killed_in_the_middle_resumes_bit_for_bit(
    first_run: FirstRun, repository: Repository, training: subprocess.Popen[str]
) -> None:
    os.kill(trainer(repository), signal.SIGKILL)
    training.communicate(timeout=60)
    assert training.returncode == 255
    assert set(repository.contents("train")) == {"data/train/.gitignore"}
    printed = repository.run(*TRAIN).stdout
    assert "resuming after epoch" in printed
    assert "epoch 1/" not in printed
    assert outcome(repository) == outcome(first_run.repository)
    assert not checkpoint(repository).exists()
    assert {"unlearn", "finetune", "mia"} & repository.changed() == {"mia"}  # it reads how long training took


def test_a_trainer_that_outlives_dvc_keeps_a_second_one_out(
    repository: Repository, training: subprocess.Popen[str]
) -> None:
    pid = trainer(repository)
    os.kill(pid, signal.SIGSTOP)  # so that it cannot end before the second one starts
    training.kill()
    training.wait()
    done = repository.run(*TRAIN, status=255)
    assert (
        f"expunge train: data/train is being written by process {pid}; "
        f"wait for it or end it (kill {pid}), then run again\n"
    ) in done.stderr
    assert alive(pid)


def test_an_ended_trainer_says_so_by_its_status_and_leaves_no_lock(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with repository.start("python", "-m", "tasks.train") as process:
        wait_for_an_epoch(repository)
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 143
    assert complaint == ""
    monkeypatch.chdir(repository.root)
    with only_writer(Path("data/train")):
        assert checkpoint(repository).exists()
