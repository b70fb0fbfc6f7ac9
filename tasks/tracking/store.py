"""An MLflow tracking store: experiments, and runs that are found by our keys.

Only :class:`MlflowClient` is used, never the fluent API: an ``MLFLOW_RUN_ID`` in the environment has no
effect, and a process can write to several stores.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from tasks.core.errors import ExpungeError
from tasks.core.files import STATE, write_json, write_whole
from tasks.core.temporary import temporary_folder
from tasks.tracking import RUNS
from tasks.tracking.pending import Waiting
from tasks.tracking.probe import file_of

KEY, STAGE, PIPELINE, UPSTREAM = "expunge.run", "expunge.stage", "expunge.pipeline", "expunge.upstream"

LONGEST_NAME, LONGEST_PARAM, LONGEST_TAG = 250, 6000, 8000


class Store:
    """A tracking store at ``uri``; runs are recorded in ``root``'s map from our keys to MLflow's ids."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self.root = root
        with _schema_lock(uri):
            if uri.startswith("sqlite:///"):
                _make_whole(file_of(uri), root)
            self.client = MlflowClient(tracking_uri=uri)
        self._runs: dict[str, str] = {}
        self._ended: dict[str, Run] = {}

    def run_of(self, journal: Waiting) -> tuple[str, bool]:
        """MLflow id of the journal's run, and whether it had to be created."""
        if journal.key in self._runs:
            return self._runs[journal.key], False
        experiment = self.experiment(str(journal.header["experiment"]))
        run = self._search(journal.key, [experiment])
        created = run is None
        if run is None:
            run = self.client.create_run(
                experiment,
                start_time=journal.header["time"],
                run_name=_run_name(journal),
                tags=self._first_tags(journal),
            )
        self._runs[journal.key] = run.info.run_id
        write_json(
            self.root / RUNS / f"{journal.key}.json",
            {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id, "uri": self.uri},
        )
        return run.info.run_id, created

    def end(self, run_id: str, journal: Waiting) -> None:
        """Close a stage's run as its last line says; without one, its process was killed."""
        last = journal.end or {"status": "KILLED", "time": int(journal.touched * 1000)}
        self.client.set_terminated(run_id, last["status"], end_time=last["time"])

    def find(self, key: str) -> Run | None:
        """The run of a key, in whatever experiment it is; remembered once it has ended."""
        if key in self._ended or not re.fullmatch("[0-9a-f]{32}", key):
            return self._ended.get(key)
        run = self._search(key, [found.experiment_id for found in self.client.search_experiments()])
        if run and run.info.end_time:
            self._ended[key] = run
        return run

    def stages_of(self, journal: Waiting) -> list[Run]:
        """Runs of a pipeline run's stages, in the order in which they began."""
        experiment = self.experiment(str(journal.header["experiment"]))
        runs = self.client.search_runs(
            [experiment], f"tags.`{PIPELINE}` = '{journal.key}'", order_by=["attributes.start_time ASC"]
        )
        return [run for run in runs if STAGE in run.data.tags]

    def write(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Iterable[Metric] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write any number of parameters, metrics and tags, in batches that MLflow takes."""
        entities = (
            ("params", [Param(name_for(k), v[:LONGEST_PARAM]) for k, v in (params or {}).items()], 100),
            ("tags", [RunTag(name_for(k), v[:LONGEST_TAG]) for k, v in (tags or {}).items()], 100),
            ("metrics", list(metrics), 1000),
        )
        for kind, values, most in entities:
            for start in range(0, len(values), most):
                self.client.log_batch(run_id, **{kind: values[start : start + most]})

    def _search(self, key: str, experiments: list[str]) -> Run | None:
        runs = self.client.search_runs(experiments, f"tags.`{KEY}` = '{key}'", max_results=1)
        return runs[0] if runs else None

    def experiment(self, name: str) -> str:
        """MLflow's id of an experiment, which is made if it is not there.

        Raises
        ------
        ExpungeError
            If it is deleted.
        """
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
        return _active(found)

    def _first_tags(self, journal: Waiting) -> dict[str, str]:
        header = journal.header
        tags = {
            **header["tags"],
            KEY: journal.key,
            PIPELINE: journal.pipeline or (journal.key if journal.is_pipeline else None),
            STAGE: header["stage"],
            "mlflow.user": header.get("user"),
            "mlflow.source.name": f"python -m tasks.{journal.name}" if header["stage"] else "dvc repro",
            "mlflow.source.type": "LOCAL",
            "mlflow.parentRunId": journal.pipeline and self._id_of_pipeline(journal),
        }
        return {name_for(name): str(value)[:LONGEST_TAG] for name, value in tags.items() if value}

    def _id_of_pipeline(self, journal: Waiting) -> str | None:
        if journal.pipeline in self._runs:
            return self._runs[journal.pipeline]
        run = self.find(journal.pipeline or "")
        return run.info.run_id if run else None


def name_for(name: str) -> str:
    """The nearest name that MLflow allows for a parameter, metric or tag."""
    allowed = re.sub(r"[^/\w.\- :]", "_", name)
    parts = [part for part in allowed.split("/") if part not in {"", ".", ".."}]
    return posixpath.join(*parts)[:LONGEST_NAME] if parts else "_"


def _active(experiment: Experiment) -> str:
    if experiment.lifecycle_stage == "deleted":
        raise ExpungeError(
            f"experiment {experiment.name!r} is deleted; restore it (mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}) or name another in params.yaml: tracking.experiment"
        )
    return str(experiment.experiment_id)


def _run_name(journal: Waiting) -> str:
    if not journal.is_pipeline:
        return journal.name
    began = datetime.fromtimestamp(journal.header["time"] / 1000).astimezone()
    return f"pipeline {began:%Y-%m-%d %H:%M}"


def _make_whole(path: Path, root: Path) -> None:
    """Make the tables of a SQLite file that is not there: a kill leaves all of them, or no file.

    MLflow itself takes seconds for them, and refuses for ever what it finds half-made.
    """
    if path.exists() and path.stat().st_size:
        return
    with temporary_folder(root) as folder:
        made = folder / "tables.db"
        MlflowClient(tracking_uri=f"sqlite:///{made.absolute()}")
        with write_whole(path) as file:
            file.write(made.read_bytes())


def _schema_lock(uri: str) -> FileLock:
    """Keep a second process out while the tables of a fresh SQLite file are made: both would fail."""
    folder = file_of(uri).parent if uri.startswith("sqlite:///") else Path()
    path = folder / STATE / "schema.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
