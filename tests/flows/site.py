"""A checkout of its own in which everything runs for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client

from tests.functional.repository import PROJECT, Repository

LATER = """
import sys
from dataclasses import replace
from datetime import timedelta
from tasks import cli
from tasks.requests.chain import now
days, opened = int(sys.argv.pop(1)), cli.desk()
cli.desk = lambda: replace(opened, clock=lambda: now() + timedelta(days=days))
cli.app()
"""
"""The command ``expunge`` with the clock moved on."""


class Site:
    """A checkout with its stores below one folder, and a real Prefect server."""

    def __init__(self, trained: Repository, folder: Path, prefect: dict[str, str], **changes: str) -> None:
        self.folder = folder
        self.repository = trained.copy(folder / "project")
        self.repository.environment |= {
            **{key: value for key, value in prefect.items() if key.startswith("PREFECT")},
            "EXPUNGE_KEYS": str(folder / "keys"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            **changes,
        }
        root = self.repository.root
        shutil.copytree(PROJECT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "prefect.yaml", root)

    def expunge(self, *arguments: str, status: int = 0) -> str:
        return self.repository.run("python", "-m", "tasks.cli", *arguments, status=status).stdout

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.expunge(*arguments, "--json", status=status))

    def counts(self, days: int, status: int = 0) -> dict[str, int]:
        """What ``expunge status`` counts so many days from now."""
        command = ("python", "-c", LATER, str(days), "status", "--no-reconcile", "--json")
        counts: dict[str, int] = json.loads(self.repository.run(*command, status=status).stdout)["counts"]
        return counts

    def prefect(self, *arguments: str) -> str:
        return self.repository.run("python", "-m", "prefect", *arguments).stdout

    def deploy(self) -> None:
        self.prefect("work-pool", "create", "expunge", "--type", "process", "--overwrite")
        self.prefect("--no-prompt", "deploy", "--all")

    def work(self) -> None:
        """Let a worker carry out what is scheduled for now."""
        self.prefect("worker", "start", "--pool", "expunge", "--run-once")

    def run(self, deployment: str, **parameters: object) -> str:
        """Start a deployment and let a worker carry it out; return the state that it ended in."""
        given = [
            part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")
        ]
        told = self.prefect("deployment", "run", f"{deployment}/{deployment}", *given)
        (line,) = [line for line in told.splitlines() if "UUID" in line]
        self.work()
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
