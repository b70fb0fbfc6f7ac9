"""A disk that takes no more is no silent success."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.repository import Repository

KIBIBYTES = 60
"""Largest file that a stage may write here; the images, logits and weights are all larger."""


@pytest.fixture
def small_disk(repository: Repository, tmp_path: Path) -> Repository:
    """A repository in which ``python`` cannot write large files, but ``dvc`` can."""
    shim = tmp_path / "bin/python"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nulimit -f {KIBIBYTES * 2}\nexec "$REAL_PYTHON" "$@"\n')
    shim.chmod(0o755)
    path = repository.environment["PATH"]
    repository.environment |= {"PATH": f"{shim.parent}:{path}", "REAL_PYTHON": f"{path.split(':')[0]}/python"}
    return repository


def test_a_stage_that_cannot_write_fails_with_one_line_and_leaves_what_was_there(
    small_disk: Repository,
) -> None:
    before = small_disk.contents()
    done = small_disk.stage("split", status=74)
    (line,) = done.stderr.splitlines()
    assert line.startswith("expunge split: ")
    assert small_disk.contents() == before


def test_repro_fails_and_neither_half_an_output_nor_a_new_lock_stays(small_disk: Repository) -> None:
    lock = (small_disk.root / "dvc.lock").read_bytes()
    done = small_disk.run("dvc", "repro", "--single-item", "--force", "train", status=255)
    assert "expunge train: " in done.stderr
    assert "ERROR: failed to reproduce 'train'" in done.stderr
    assert set(small_disk.contents("train")) == {"data/train/.gitignore"}
    assert (small_disk.root / "dvc.lock").read_bytes() == lock
