"""A registered model behind MLflow's own server, started by somebody who has nothing of the repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.engine.predict import logits
from tasks.engine.weights import load
from tests.functional.repository import PROJECT, Repository, environment
from tests.tracking.conftest import empty_store

__all__ = ["empty_store"]

ADOPTED = ("mine/net.py", {"width": 4})
"""A model whose code lies in no folder that the server knows of."""


@pytest.fixture
def project(tmp_path: Path, empty_store: Path) -> Repository:
    (tmp_path / "project/.dvc").mkdir(parents=True)
    kept = environment(tmp_path)
    del kept["EXPUNGE_TRACKING"]
    repository = Repository(tmp_path / "project", kept)
    repository.create()
    path, options = ADOPTED
    repository.write(path, (PROJECT / "docs/examples/my_model.py").read_text())
    repository.change({"train.model": "module", "train.module.path": path, "train.module.options": options})
    repository.commit("a model of our own")
    repository.stage("split")
    shutil.copy(empty_store, repository.root / "mlflow.db")
    return repository


def expunge(repository: Repository, *arguments: str) -> str:
    return repository.run("python", "-m", "tasks.cli", *arguments, PYTHONPATH=str(repository.root)).stdout


def made_elsewhere(repository: Repository) -> None:
    """Write weights as a program does that knows nothing of this project."""
    code = (
        "import sys, torch; sys.path.insert(0, 'mine'); import net; torch.manual_seed(1); "
        "torch.save({'state_dict': net.build(1, 10, (8, 8), width=4).state_dict()}, '../w.pt')"
    )
    repository.run("python", "-c", code)


@contextmanager
def served(repository: Repository, away: Path) -> Iterator[str]:
    """Serve the model in production from another folder; yield the address."""
    away.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ("mlflow", "models", "serve", "-m", "models:/expunge@production")
    where = {"MLFLOW_TRACKING_URI": f"sqlite:///{repository.root}/mlflow.db", "DO_NOT_TRACK": "true"}
    with (away / "log").open("w") as log:
        server = subprocess.Popen(
            (*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", port),
            cwd=away, env=repository.environment | where, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 90
            while not answers(f"{address}/ping"):
                ended = server.poll() is not None or time.monotonic() > deadline
                assert not ended, (away / "log").read_text()
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=20)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def asked(address: str, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Logits of images, by a request as a page or another program makes it."""
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return np.array(json.loads(answer.read())["predictions"])


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_the_model_in_production_answers_behind_mlflows_own_server(
    project: Repository, tmp_path: Path
) -> None:
    """One that was adopted, with code of the user's own that only the registered model carries."""
    made_elsewhere(project)
    told = json.loads(expunge(project, "adopt", "../w.pt", "--trained-on-all", "--by", "ada", "--json"))
    assert told["version"] == "1"
    images = np.load(project.root / "data/split/images/00000.npy")[:7]
    (project.root / "mine/net.py").write_text("raise RuntimeError\n")
    (project.root / "tasks").rename(tmp_path / "tasks-elsewhere")
    with served(project, tmp_path / "away") as address:
        answer = asked(address, images)
    assert answer.shape == (7, 10)
    (project.root / "mine/net.py").write_text((PROJECT / "docs/examples/my_model.py").read_text())
    np.testing.assert_allclose(answer, by_the_engine(project, images), atol=1e-4)


def by_the_engine(repository: Repository, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of the weights in ``data/base``."""
    from tasks.models import module

    before, module.ROOT = module.ROOT, repository.root
    try:
        model, _ = load(repository.root / "data/base")
        found: NDArray[np.float32] = logits(model, images)
    finally:
        module.ROOT = before
    return found
