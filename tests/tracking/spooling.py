"""Runs, recorded for the tests."""

import json
import shutil
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from tasks import journal
from tasks.core.params import Tracking
from tasks.journal import spool

TRACKING = Tracking(timeout=2)


def record(stage: str, root: Path, *, reads: tuple[str, ...] = (), **metrics: float) -> str:
    """Record a stage that writes ``data/<stage>/out`` from ``data/<read>/out``; return its key."""
    with journal.record(stage, TRACKING, root) as run:
        run.params({f"{stage}.seed": 1})
        inputs = {f"data/{read}/out": digest_of(root, read) for read in reads}
        for path, digest in inputs.items():
            run.dataset(path, path, digest, "input")
        run.metrics(metrics)
        folder = root / "data" / stage
        folder.mkdir(parents=True, exist_ok=True)
        outputs = {f"data/{stage}/out": f"digest of {stage}"}
        value = {"run": run.key, "pipeline": run.pipeline, "stage": stage}
        (folder / "run.json").write_text(json.dumps(value | {"inputs": inputs, "outputs": outputs}))
    return run.key


def digest_of(root: Path, stage: str) -> str:
    outputs: dict[str, str] = json.loads((root / "data" / stage / "run.json").read_text())["outputs"]
    return outputs[f"data/{stage}/out"]


def change_output(root: Path, stage: str) -> None:
    """As if the last run of a stage had written something else."""
    path = root / "data" / stage / "run.json"
    value = json.loads(path.read_text())
    value["outputs"] = dict.fromkeys(value["outputs"], "other")
    path.write_text(json.dumps(value))


def disown(folder: Path, *, lines: int | None = None, tail: bytes = b"") -> None:
    """As if the process that writes a journal were gone: keep ``lines`` whole lines, then ``tail``."""
    path = folder / spool.LINES
    header, *rest = path.read_bytes().splitlines(keepends=True)
    value: dict[str, Any] = json.loads(header)
    value["process"]["created"] = 0.0
    kept = [line for line in rest if b'"end"' not in line][:lines]
    path.write_bytes(spool.line(value) + b"".join(kept) + tail)


def keep_copy(root: Path, name: str = "copy") -> Path:
    """A copy of the spool."""
    return Path(shutil.copytree(root / spool.SPOOL, root / name))


def runs(client: MlflowClient, name: str | None = None) -> list[Run]:
    """All runs of a store, oldest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
    return [run for run in found if name is None or run.info.run_name == name]
