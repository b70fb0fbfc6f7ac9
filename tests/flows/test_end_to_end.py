"""Everything for real on loopback: Prefect server and worker, MLflow server, DVC remote, three requests."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from prefect.client.orchestration import get_client

from tests.flows.site import Site
from tests.functional.repository import PROJECT, Repository
from tests.processing.conftest import names, trained
from tests.processing.test_processor import weights_in
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


@pytest.fixture
def sites(
    trained: Repository, served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Site, MlflowClient]]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    port = free_port()
    site = Site(trained, tmp_path, served, EXPUNGE_TRACKING="on")
    repository = site.repository
    shutil.rmtree(repository.root / ".expunge")  # with runs that wait for another store
    with mlflow_server(port, folder) as mlflow:
        repository.change({"tracking.uri": f"http://127.0.0.1:{port}", "requests.chain": ["none"]})
        repository.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
        repository.dvc("repro", "--force", "train")
        repository.dvc("push", "--run-cache")
        repository.commit("first run")
        yield site, mlflow
    shutil.rmtree(tmp_path)


def test_three_requests_from_the_inbox_to_the_certificate(sites: tuple[Site, MlflowClient]) -> None:
    site, mlflow = sites
    root = site.repository.root
    image = (root / "data/images" / CANARY).read_bytes()
    with Image.open(root / "data/images" / CANARY) as opened:
        pixels = np.asarray(opened).tobytes()
    assert len(site.holding(image, pixels)) >= 3  # the source, the split, DVC's cache and remote
    site.deploy()
    request = {
        "requester": "crm:4711",
        "received_at": datetime.now(UTC).isoformat(),
        "ground": "consent-withdrawn",
        "samples": {"id": [CANARY]},
    }
    assert site.run("submit-request", submission=request).startswith("Completed")
    (good,) = [entry["request"] for entry in site.json("list")]

    # as the days go by: a month is the rule, and one extension makes it three
    assert site.counts(0) == {"overdue": 0, "at risk": 0, "on time": 1}
    assert site.counts(26) == {"overdue": 0, "at risk": 1, "on time": 0}
    assert site.counts(40, status=3) == {"overdue": 1, "at risk": 0, "on time": 0}
    site.expunge("extend", good, "--reason", "many requests at once")
    assert site.counts(40) == {"overdue": 0, "at risk": 0, "on time": 1}
    assert site.counts(100, status=3)["overdue"] == 1

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
    found = site.json("verify", "erasure", good)
    results = {(entry["store"], entry["outcome"]) for entry in found["stores"]}
    assert {outcome for _, outcome in results} <= {
        "nothing-found",
        "deleted",
        "not-applicable",
        "cannot-be-reached",
        "not-opened",  # the scores: arrays of numbers that no image is recognised in
    }
    versions_gone = [each["outcome"] for each in found["stores"] if each["scope"].startswith("versions ")]
    assert versions_gone == ["deleted"]
    searched = {store for store, outcome in results if outcome == "nothing-found"}
    assert searched >= {"workspace", "DVC cache", "DVC remote storage", "Prefect", "Git history"}

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

    # of weights, those in production alone are left: in checkout, cache, remote and MLflow
    in_production = json.loads((root / "data/base/weights.json").read_text())["sha256"]
    assert weights_in(site.folder) == {in_production}
    versions = mlflow.search_model_versions("name='expunge'")
    assert [version.version for version in versions] == [ids["version"]]

    # the certificate, elsewhere
    certificate = root / f"data/requests/certificates/{good}.json"
    elsewhere = site.folder / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(certificate, elsewhere)
    (elsewhere / "keys.txt").write_text(site.expunge("public-key"))
    command = [sys.executable, "-m", "tasks.cli", "verify", "certificate", f"./{certificate.name}"]
    command += ["--public-key", "keys.txt"]
    environment = {**site.repository.environment, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

    # MLflow's runs and Prefect's page name the others
    tags = mlflow.get_run(ids["MLflow run of audit"]).data.tags
    attested = hashlib.sha256(certificate.read_bytes()).hexdigest()
    assert tags[f"expunge.certificate.{good}"] == attested == ids["certificate"]
    (commit,) = (step["ids"]["commit"] for step in chain if step["event"] == "batch-promoted")
    assert (tags["expunge.commit"], tags["expunge.version"]) == (commit, ids["version"])
    assert tags["prefect.flow_run_id"] == ids["Prefect flow run"]
    with get_client(sync_client=True) as client:
        pages = [page for page in client.read_latest_artifacts() if page.key == "requests"]
    assert all(part in str(pages[0].data) for part in (good, commit[:10], attested[:12]))

    # what is written down elsewhere shows a ledger that was rewritten
    assert "unbroken" in site.expunge("verify", "ledger")
    assert site.run("audit-production").startswith("Completed")
    assert site.json("status")["attention"] == []
    assert (
        "must not return"
        in site.repository.run(
            "python", "-m", "tasks.cli", "rollback", "1", "--reason", "it was better", status=2
        ).stderr
    )
    assert site.json("report")["closed in time"] == 1

    # what somebody changes by hand in MLflow is noticed, and the ledger stays right
    mlflow.delete_registered_model_alias("expunge", "production")
    assert "points at nothing" in " ".join(site.json("status", status=3)["attention"])
    assert site.run("audit-production").startswith("Failed")
