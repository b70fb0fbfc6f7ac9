"""The pipeline, run once by DVC; each test gets a copy of the repository as that run left it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.functional.repository import Repository, environment
from tests.once import made_once


class FirstRun(NamedTuple):
    """A repository after ``dvc repro``, and what that printed, import times of its stages included."""

    repository: Repository
    printed: str


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    folder = made_once(tmp_path_factory, "first", _run)
    repository = Repository(folder / "project", environment(folder))
    return FirstRun(repository, (folder / "printed").read_text(encoding="utf-8"))


def _run(folder: Path) -> None:
    (folder / "project/.dvc").mkdir(parents=True)
    repository = Repository(folder / "project", environment(folder))
    repository.create()
    done = subprocess.run(
        ("dvc", "repro"),
        cwd=repository.root,
        env=repository.environment | {"PYTHONPROFILEIMPORTTIME": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # one pipe, so that a line shows after the stage that it belongs to
        text=True,
        check=False,
    )
    assert done.returncode == 0, "\n".join(
        line for line in done.stdout.splitlines() if not line.startswith("import time")
    )
    repository.commit("the first run")
    (folder / "printed").write_text(done.stdout, encoding="utf-8")


@pytest.fixture
def repository(first_run: FirstRun, tmp_path: Path) -> Repository:
    """A copy for one test to change."""
    return first_run.repository.copy(tmp_path / "project")
