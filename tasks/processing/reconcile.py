"""What MLflow, Prefect and the workspace say, beside what the ledger says. The ledger is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.erasure.stores.prefect import FlowRuns
from tasks.processing import production
from tasks.processing.batches import in_progress
from tasks.requests.chain import Event, Head
from tasks.requests.desk import Desk
from tasks.requests.events import Attempt, Audit, OfBatch
from tasks.requests.production import in_production, models
from tasks.requests.states import Status
from tasks.tracking import run_ids

RUNNING = frozenset({"RUNNING", "PENDING", "SCHEDULED", "PAUSED"})


def differences(desk: Desk, params: Params, root: Path, environ: Mapping[str, str]) -> list[str]:
    """Return one line for everything that does not fit the ledger, or could not be asked."""
    return [
        *_guarded("MLflow", _mlflow(desk, params, root)),
        *_guarded("Prefect", _prefect(desk, environ)),
        *_guarded("data/base", _base(desk)),
    ]


def _guarded(what: str, lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except ExpungeError as error:
        yield f"{what} could not be compared: {error}"


def _mlflow(desk: Desk, params: Params, root: Path) -> Iterator[str]:
    registry = models(params, root)
    current = in_production(desk.ledger)
    if registry is None or current is None:
        return
    known = {version.version: version for version in registry.versions()}
    yield from production.other_alias(registry, current)
    if current.version is not None and current.version not in known:
        yield f"MLflow: version {current.version}, which is in production, is not in the registry"
    events = desk.ledger.events()
    for version in known.values():
        anchor = version.tags.get("expunge.ledger")
        if anchor and not _lies_on(Head.parse(anchor), events):
            yield f"MLflow: version {version.version} was made with another ledger than this one"
    facts_told = [event.fact for event in events if event.kind in {"batch-audited", "audited"}]
    audits = [each.of_batch() if isinstance(each, OfBatch) else each for each in facts_told]
    runs = {key for audit in audits if isinstance(audit, Audit) for key in audit.runs.values()}
    lost = runs - set(run_ids(runs, root))
    if lost:
        yield f"MLflow: {len(lost)} of {len(runs)} runs that the ledger names were not sent from here"


def _lies_on(anchor: Head, events: Sequence[Event]) -> bool:
    return anchor.seq <= len(events) and (anchor.seq == 0 or events[anchor.seq - 1].hash == anchor.hash)


def _prefect(desk: Desk, environ: Mapping[str, str]) -> Iterator[str]:
    running = [batch for batch in in_progress(desk) if batch.status is Status.RUNNING]
    server = FlowRuns(environ)
    if not server.url or not running:
        return
    states = {str(run["id"]): str(run["state_type"]) for run in server.runs()}
    for batch in running:
        attempt = batch.common(Attempt)
        flow = attempt.flow_run if attempt else None
        state = states.get(flow.id) if flow else None
        if state not in RUNNING:
            which = f"flow run {flow.name} is {state or 'unknown'} to it" if flow else "no flow run is named"
            yield f"Prefect: {batch.id} is running, but {which}; the next run of process-requests goes on"


def _base(desk: Desk) -> Iterator[str]:
    if current := in_production(desk.ledger):
        production.check_base(current.weights)
    yield from ()
