"""What MLflow, Prefect and the workspace say, beside what the ledger says. The ledger is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.erasure.stores.prefect import FlowRuns
from tasks.processing import production
from tasks.processing.batches import in_progress
from tasks.requests.desk import Desk, Request
from tasks.requests.ledger import Event, Head
from tasks.requests.production import in_production, models
from tasks.requests.states import Status
from tasks.tracking import run_ids

RUNNING = frozenset({"RUNNING", "PENDING", "SCHEDULED", "PAUSED"})


def differences(desk: Desk, params: Params, root: Path, environ: Mapping[str, str]) -> list[str]:
    """Return one line for everything that does not fit the ledger, or could not be asked."""
    events, requests = desk.ledger.events(), desk.requests()
    return [
        *_guarded("MLflow", _mlflow(events, params, root)),
        *_guarded("Prefect", _prefect(requests, environ)),
        *_guarded("data/base", _base(events)),
    ]


def _guarded(what: str, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except ExpungeError as error:
        yield f"{what} could not be compared: {error}"


def _mlflow(events: Sequence[Event], params: Params, root: Path) -> Iterator[str]:
    registry = models(params, root)
    current = in_production(events)
    if registry is None or current is None:
        return
    known = {version.version: version for version in registry.versions()}
    yield from production.other_alias(registry, current)
    if current.version is not None and current.version not in known:
        yield f"MLflow: version {current.version}, which is in production, is not in the registry"
    for version in known.values():
        anchor = version.tags.get("expunge.ledger")
        if anchor and not _lies_on(Head.parse(anchor), events):
            yield f"MLflow: version {version.version} was made with another ledger than this one"
    runs = {str(key) for event in events for key in (event.body.get("runs") or {}).values()}
    lost = runs - set(run_ids(runs, root))
    if lost:
        yield f"MLflow: {len(lost)} of {len(runs)} runs that the ledger names were not sent from here"


def _lies_on(anchor: Head, events: Sequence[Event]) -> bool:
    return anchor.seq <= len(events) and (anchor.seq == 0 or events[anchor.seq - 1].hash == anchor.hash)


def _prefect(requests: Sequence[Request], environ: Mapping[str, str]) -> Iterator[str]:
    running = [batch for batch in in_progress(requests) if batch.status is Status.RUNNING]
    server = FlowRuns(environ)
    if not server.url or not running:
        return
    states = {str(run["id"]): str(run["state_type"]) for run in server.runs()}
    for batch in running:
        started = batch.latest("started")
        flow = (started.body.get("flow_run") if started else None) or {}
        state = states.get(str(flow.get("id")))
        if state not in RUNNING:
            which = (
                f"flow run {flow['name']} is {state or 'unknown'} to it" if flow else "no flow run is named"
            )
            yield f"Prefect: {batch.id} is running, but {which}; the next run of process-requests goes on"


def _base(events: Sequence[Event]) -> Iterator[str]:
    if current := in_production(events):
        production.check_base(current.weights)
    yield from ()
