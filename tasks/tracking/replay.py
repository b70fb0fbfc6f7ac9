"""Entries of a journal, written to its MLflow run.

Every entry can be written twice without harm: metrics carry the time at which they were recorded,
files replace themselves, a model that is there is not logged again. So a sender that dies between
writing and remembering loses nothing and doubles nothing.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from tasks.tracking.model import log_model
from tasks.tracking.pending import Waiting
from tasks.tracking.store import UPSTREAM, Store, name_for

LONGEST_DIGEST = 36
"""MLflow's limit; an MD5 with DVC's ``.dir`` after it has just that length."""


def replay(store: Store, journal: Waiting) -> tuple[str, bool]:
    """Write what is new in a journal to its run.

    Returns
    -------
    tuple
        MLflow's id of the run, and whether the run is new to MLflow.
    """
    run_id, created = store.run_of(journal)
    sent = 0 if created else journal.offset  # a store that has lost the run gets all of it again
    entries = [entry for offset, entry in journal.entries if offset > sent]
    _write_values(store, run_id, entries)
    for entry in entries:
        _write_file(store, run_id, journal, entry)
    if any(entry["kind"] == "dataset" for entry in entries):
        store.write(run_id, tags={UPSTREAM: json.dumps(journal.upstream())})
    if entries and not journal.end:  # the end is remembered by the run's removal from the spool
        journal.note(offset=journal.entries[-1][0])
    return run_id, created


def _write_values(store: Store, run_id: str, entries: list[dict[str, Any]]) -> None:
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    metrics: list[Metric] = []
    for entry in entries:
        match entry["kind"]:
            case "params":
                params |= entry["values"]
            case "tags":
                tags |= entry["values"]
            case "metrics":
                metrics += [
                    Metric(name_for(name), value, entry["time"], entry["step"])
                    for name, value in entry["values"].items()
                ]
    store.write(run_id, params=params, metrics=metrics, tags=tags)


def _write_file(store: Store, run_id: str, journal: Waiting, entry: dict[str, Any]) -> None:
    match entry["kind"]:
        case "artifact":
            store.client.log_artifact(run_id, str(journal.folder / entry["file"]), entry["folder"] or None)
        case "dataset":
            dataset = Dataset(
                name=entry["name"][:500],
                digest=entry["digest"][:LONGEST_DIGEST],
                source_type="local",
                source=json.dumps({"uri": entry["source"]}),
            )
            tag = InputTag("mlflow.data.context", entry["context"])
            store.client.log_inputs(run_id, datasets=[DatasetInput(dataset, [tag])])
        case "model":
            paths = {key: journal.folder / entry[key] for key in ("weights", "info", "code") if key in entry}
            log_model(store, run_id, **paths)
