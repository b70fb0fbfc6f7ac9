"""One small DVC project a test, and one Prefect server for all."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socket import socket

import pytest

from tests.flows.project import Project, until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "project"
    root.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", root)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    Project(root).write()
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.setattr("flows.pipeline.ROOT", root)
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    return Project(root)


@pytest.fixture(scope="module")
def checkout(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the real code beside it, to be run as a program of its own."""
    root = tmp_path_factory.mktemp("checkout") / "project"
    shutil.copytree(template, root)
    for name in ("flows", "tasks"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "prefect.yaml", root)
    return Project(root)


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which Prefect knows no server and keeps its database in a folder of the tests."""
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true", "EXPUNGE_TRACKING": "off"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, **quiet, "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}


@pytest.fixture(scope="session")
def served(prefect_environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same environment with a real server behind it."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=prefect_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: _answers(f"{address}/health"), seconds=90, what="the Prefect server")
        yield {**prefect_environment, "PREFECT_API_URL": address}
        APILogWorker.drain_all()  # while there is a server to send to
        EventsWorker.drain_all()
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def server(served: dict[str, str]) -> Iterator[None]:
    """Flows of this process use the server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    updates = {PREFECT_API_URL: served["PREFECT_API_URL"], PREFECT_HOME: served["PREFECT_HOME"]}
    with temporary_settings(updates):
        yield
        gc.collect()  # in here, where warnings of Prefect's open sockets are ignored


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
