"""The run of a whole pipeline: its stages, executed and cached, their parameters, its figures.

All of it follows from the stages' own runs in MLflow, so it can be written any number of times, by
whichever sender is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Run

from tasks.journal.origin import runs_on_disk
from tasks.tracking.pending import Waiting, stage_of
from tasks.tracking.store import KEY, STAGE, UPSTREAM, Store

RESULT = "mia"
"""The stage whose metrics are the pipeline's: the same names in every pipeline run."""


def refresh(store: Store, journal: Waiting) -> None:
    """Write what is known of a running pipeline's stages to its run.

    Only the stages before an executed one are known to be up to date: others may have left files that
    DVC has yet to replace.
    """
    run_id, executed = _executed(store, journal)
    _write(store, run_id, executed, _read_by(executed))


def complete(store: Store, journal: Waiting) -> None:
    """Write what became of a pipeline's stages to its run, and close it.

    If all went well, what lies in the workspace and fits together is what DVC found up to date.
    """
    run_id, executed = _executed(store, journal)
    cached = _read_by(executed)
    if all(run.info.status == "FINISHED" for run in executed.values()):
        made = {stage: run.data.tags[KEY] for stage, run in executed.items()}
        cached |= _fitting(Path(journal.header["workspace"]), made)
    _write(store, run_id, executed, cached)
    ends = [run.info.end_time for run in executed.values() if run.info.end_time]
    end = journal.end["time"] if journal.end else max(ends, default=int(journal.touched * 1000))
    store.client.set_terminated(run_id, _status(journal, executed), end_time=end)


def _executed(store: Store, journal: Waiting) -> tuple[str, dict[str, Run]]:
    """Id of the pipeline's run, and the stages' runs; a stage that was tried again has its last one."""
    run_id, _ = store.run_of(journal)
    return run_id, {run.data.tags[STAGE]: run for run in store.stages_of(journal)}


def _read_by(executed: Mapping[str, Run]) -> dict[str, str]:
    """Keys of the runs that made what the executed stages read, by stage."""
    found: dict[str, str] = {}
    for run in executed.values():
        found |= json.loads(run.data.tags.get(UPSTREAM, "{}"))
    return found


def _write(store: Store, run_id: str, executed: Mapping[str, Run], keys: Mapping[str, str]) -> None:
    cached = {stage: store.find(key) for stage, key in keys.items() if stage not in executed}
    runs = {**{stage: run for stage, run in cached.items() if run}, **executed}
    params: dict[str, str] = {}
    for run in runs.values():
        params |= run.data.params
    tags = {"mlflow.note.content": _table(executed, cached)}
    for stage, linked in {**cached, **executed}.items():
        tags[f"expunge.stage.{stage}"] = linked.info.run_id if linked else "unknown"
        tags[f"expunge.stage.{stage}.status"] = "executed" if stage in executed else "cached"
    known = store.client.get_run(run_id).data.params
    store.write(
        run_id,
        params={name: value for name, value in params.items() if name not in known},
        metrics=_results(runs.get(RESULT)),
        tags=tags,
    )


def _fitting(workspace: Path, made: Mapping[str, str]) -> dict[str, str]:
    """Stages on disk whose inputs are, by digest, the outputs of ``made`` or of stages that fit."""
    runs = runs_on_disk(workspace)
    if any(stage not in runs or runs[stage]["run"] != key for stage, key in made.items()):
        return {}  # the workspace has moved on since
    fit = dict(made)
    while found := {
        stage: run["run"]
        for stage, run in runs.items()
        if stage not in fit
        and all(
            stage_of(path) in fit and runs[stage_of(path)]["outputs"].get(path) == digest
            for path, digest in run["inputs"].items()
            if stage_of(path) in runs
        )
    }:
        fit |= found
    return fit


def _results(run: Run | None) -> list[Metric]:
    if run is None or run.info.status != "FINISHED":
        return []
    return [Metric(name, value, run.info.end_time, 0) for name, value in run.data.metrics.items()]


def _status(journal: Waiting, executed: Mapping[str, Run]) -> str:
    if journal.end and journal.end["status"] != "FINISHED":
        return str(journal.end["status"])
    found = {run.info.status for run in executed.values()}
    return next((status for status in ("KILLED", "FAILED") if status in found), "FINISHED")


def _table(executed: Mapping[str, Run], cached: Mapping[str, Run | None]) -> str:
    """Markdown for the run's page: each stage, what became of it, and a link to its run."""
    rows = ["| stage | | run |", "|---|---|---|"]
    for runs, how in ((cached, "cached"), (executed, "executed")):
        in_order = sorted(runs.items(), key=lambda item: item[1].info.start_time if item[1] else 0)
        rows += [f"| {stage} | {how} | {_link(run)} |" for stage, run in in_order]
    return "\n".join(rows)


def _link(run: Run | None) -> str:
    if run is None:
        return "unknown"
    info = run.info
    status = "" if info.status == "FINISHED" else f" ({info.status.lower()})"
    return f"[{info.run_id[:8]}](#/experiments/{info.experiment_id}/runs/{info.run_id}){status}"
