"""Everything for real on loopback: Prefect server and worker, MLflow server, DVC remote, three requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from prefect.client.orchestration import get_client

from tests.functional.repository import PROJECT, Repository
from tests.processing.conftest import names, trained
from tests.tracking.test_sender import free_port
from tests.tracking.test_sender import server as mlflow_server

__all__ = ["trained"]

pytestmark = [
    pytest.mark.usefixtures("server"),
    pytest.mark.timeout(600),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

(CANARY,) = names(1, 11)


class Site:
    """A checkout with all its servers and stores, below one folder."""

    def __init__(self, repository: Repository, folder: Path, mlflow: MlflowClient) -> None:
        self.repository = repository
        self.folder = folder
        self.mlflow = mlflow

    def expunge(self, *arguments: str, status: int = 0) -> str:
        return self.repository.run("python", "-m", "tasks.cli", *arguments, status=status).stdout

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.expunge(*arguments, "--json", status=status))

    def prefect(self, *arguments: str) -> str:
        return self.repository.run("python", "-m", "prefect", *arguments).stdout

    def run(self, deployment: str, **parameters: object) -> str:
        """Start a deployment and let a worker carry it out; return the state that it ended in."""
        given = [
            part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")
        ]
        told = self.prefect("deployment", "run", f"{deployment}/{deployment}", *given)
        (line,) = [line for line in told.splitlines() if "UUID" in line]
        self.prefect("worker", "start", "--pool", "expunge", "--run-once")
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(line.rpartition(" ")[2]).state  # type: ignore[arg-type]
        assert state is not None
        return f"{state.name}: {state.message}"

    def holding(self, *wanted: bytes) -> list[Path]:
        """Files of any store, Git's among them, that hold one of these bytes."""
        folders = (self.folder, Path(self.repository.environment["PREFECT_HOME"]))
        found = (path for folder in folders for path in folder.rglob("*"))
        files = [path for path in found if path.is_file() and not path.is_symlink()]
        return [path for path in files if any(each in path.read_bytes() for each in wanted)]


@pytest.fixture
def site(
    trained: Repository, served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    port = free_port()
    repository = trained.copy(tmp_path / "project")
    root = repository.root
    prefect = {key: value for key, value in served.items() if key.startswith("PREFECT")}
    repository.environment |= prefect | {
        "EXPUNGE_TRACKING": "on",
        "EXPUNGE_KEYS": str(tmp_path / "keys"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    shutil.copytree(PROJECT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "prefect.yaml", root)
    folder = tmp_path / "mlflow"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with mlflow_server(port, folder) as mlflow:
        repository.change({"tracking.uri": f"http://127.0.0.1:{port}", "requests.chain": ["none"]})
        repository.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
        repository.dvc("repro", "--force", "train")
        repository.dvc("push", "--run-cache")
        repository.commit("first run")
        yield Site(repository, tmp_path, mlflow)
    shutil.rmtree(tmp_path)


def test_three_requests_from_the_inbox_to_the_certificate(site: Site) -> None:
    root = site.repository.root
    image = (root / "data/images" / CANARY).read_bytes()
    with Image.open(root / "data/images" / CANARY) as opened:
        pixels = np.asarray(opened).tobytes()
    assert len(site.holding(image, pixels)) >= 3  # the source, the split, DVC's cache and remote
    site.repository.run(
        "python", "-m", "prefect", "work-pool", "create", "expunge", "--type", "process", "--overwrite"
    )
    site.prefect("--no-prompt", "deploy", "--all")
    request = {
        "requester": "crm:4711",
        "received_at": (datetime.now(UTC) - timedelta(days=40)).isoformat(),
        "ground": "consent-withdrawn",
        "samples": {"id": [CANARY]},
    }
    assert site.run("submit-request", submission=request).startswith("Completed")
    (good,) = [entry["request"] for entry in site.json("list")]

    # forty days are too long, and one extension makes up for it
    assert site.json("status", status=3)["counts"]["overdue"] == 1
    site.expunge("extend", good, "--reason", "many requests at once")
    assert site.json("status")["counts"]["overdue"] == 0

    inbox = root / "data/requests/inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / "again.json").write_text(json.dumps(request))
    (inbox / "bad.json").write_text(json.dumps(request | {"samples": {"index": [-1]}}))
    subprocess.run(["touch", "-d", "1 minute ago", *map(str, inbox.glob("*.json"))], check=True)
    assert site.run("process-requests").startswith("Completed"), site.expunge("show", good)

    states = {entry["request"]: entry["status"] for entry in site.json("list", "--all")}
    assert sorted(states.values()) == ["closed", "duplicate", "rejected"]
    assert states[good] == "closed"
    assert site.holding(image, pixels) == []
    found = site.json("verify", good)
    assert {entry["result"] for entry in found["stores"]} == {"nothing found", "deleted"}
    assert {entry["store"] for entry in found["stores"]} >= {
        "workspace",
        "DVC cache",
        "DVC remote storage",
        "Prefect flow runs",
    }

    # the chain, both ways
    chain = site.json("trace", good)[good]
    ids = {key: value for step in chain for key, value in step["ids"].items()}
    for way in (
        ("--model", ids["version"]),
        ("--commit", ids["commit"]),
        ("--run", ids["MLflow run of audit"]),
        ("--run", ids["Prefect flow run"]),
    ):
        assert list(site.json("trace", *way)) == [good]
    site.expunge("trace", good, "--html", "trace.html")
    assert good in (root / "trace.html").read_text()
    assert "closed" in site.expunge("trace", good)

    # the certificate, elsewhere
    certificate = root / f"data/requests/certificates/{good}.json"
    elsewhere = site.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(certificate, elsewhere)
    command = [sys.executable, "-m", "tasks.cli", "verify", f"./{certificate.name}"]
    environment = {**site.repository.environment, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    # what is written down elsewhere shows a ledger that was rewritten
    assert "on 2 anchor(s)" in site.expunge("verify")
    assert site.run("audit-production").startswith("Completed")
    assert site.json("status")["differences"] == []
    assert (
        "must not return"
        in site.repository.run(
            "python", "-m", "tasks.cli", "rollback", "1", "--reason", "it was better", status=2
        ).stderr
    )
    assert site.json("report")["closed in time"] == 1

    # what somebody changes by hand in MLflow is noticed, and the ledger stays right
    site.mlflow.delete_registered_model_alias("expunge", "production")
    assert "points at nothing" in " ".join(site.json("status")["differences"])
    assert site.run("audit-production").startswith("Failed")
