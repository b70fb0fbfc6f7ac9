"""Sharing data and results through a DVC remote."""

from __future__ import annotations

import re
from pathlib import Path

from tests.functional.repository import STAGES, Repository


def test_a_fresh_clone_that_pulls_has_every_file_and_runs_nothing(
    repository: Repository, tmp_path: Path
) -> None:
    repository.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    repository.dvc("push")
    repository.git("clone", "--quiet", str(repository.root), str(tmp_path / "clone"))
    clone = Repository(tmp_path / "clone", repository.environment)
    assert not (clone.root / "data/train/weights.safetensors").exists()
    clone.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    clone.dvc("pull")
    assert clone.contents() == repository.contents()
    printed = clone.dvc("repro")
    assert re.findall(r"Stage '(\w+)' didn't change, skipping", printed) == ["sample", *STAGES]
    assert clone.git("status", "--porcelain") == ""
