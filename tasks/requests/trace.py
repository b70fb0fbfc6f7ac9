"""The way from a request to the weights it changed, and back from a model, a run or a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.reporting import pages
from tasks.requests.commits import BATCH, REQUESTS, STEP, now, trailers_of
from tasks.requests.desk import Desk, Request
from tasks.requests.ledger import Event
from tasks.tracking import run_ids

COMMITTED = ("promoted", "purged")
"""Steps that end with a commit of their own; other events name the commit that was there."""


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain: what happened, when, and under which names it is found elsewhere."""

    seq: int
    at: str
    event: str
    what: str
    ids: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def by_model(version: str) -> Callable[[Event], bool]:
    """Events about a version of the registered model, or about weights by 12 digits of their SHA-256."""

    def matches(event: Event) -> bool:
        body = event.body
        base = body.get("base") or {}
        if version in (body.get("version"), base.get("version")):
            return True
        known = [body.get("weights"), base.get("weights")]
        return len(version) >= 12 and any(isinstance(own, str) and own.startswith(version) for own in known)

    return matches


def by_run(run: str, root: Path) -> Callable[[Event], bool]:
    """Events about a run: a stage's or pipeline's key, MLflow's id of either, or a Prefect flow run's id."""

    def matches(event: Event) -> bool:
        keys = [*(event.body.get("runs") or {}).values(), event.body.get("pipeline") or ""]
        flow = event.body.get("flow_run") or {}
        named = flow.get("id") if isinstance(flow, dict) else flow
        return run in keys or run == named or run in run_ids([key for key in keys if key], root).values()

    return matches


def by_commit(commit: str, root: Path) -> Callable[[Event], bool]:
    """Events about a Git commit, by seven digits or more, and by what it became in a rewritten history."""
    said = trailers_of(root, commit) if len(commit) >= 7 else {}
    of = set(said.get(REQUESTS, "").split(", "))

    def matches(event: Event) -> bool:
        if len(commit) >= 7 and str(event.body.get("commit", "")).startswith(commit):
            return True
        step = (event.kind, event.body.get("batch"))
        return event.request in of and step == (said.get(STEP), said.get(BATCH))

    return matches


def requests_of(desk: Desk, matches: Callable[[Event], bool], what: str) -> list[Request]:
    """Return the requests that an event of this kind is about.

    Raises
    ------
    ExpungeError
        If there is none.
    """
    found = [request for request in desk.requests() if any(map(matches, request.events))]
    if not found:
        raise ExpungeError(f"the ledger has no request that {what} is about")
    return found


def trace(request: Request, root: Path) -> list[Step]:
    """Return the chain of one request, oldest link first."""
    return list(_steps(request.events, root))


def render(chains: Mapping[str, Sequence[Step]]) -> str:
    """Return the chains as one self-contained page."""
    return pages.render("trace.html", {"chains": chains})


def _steps(events: Sequence[Event], root: Path) -> Iterator[Step]:
    for event in events:
        tell, ids = TELL.get(event.kind, _by_whom), _ids(event.body, root)
        if became := now(root, ids["commit"], _said(event)) if "commit" in ids else None:
            ids["commit now"] = became
        yield Step(event.seq, event.at, event.kind, tell(event.body), ids)


def _said(event: Event) -> dict[str, str]:
    """What the commit of a step says, if processing made it for that step."""
    if event.kind not in COMMITTED or event.request is None:
        return {}
    return {BATCH: str(event.body.get("batch")), STEP: event.kind, REQUESTS: event.request}


def _ids(body: Mapping[str, Any], root: Path) -> dict[str, str]:
    """Every name by which a link is found in another store."""
    found = {
        name: str(body[name])
        for name in ("batch", "commit", "lock", "version", "certificate", "first", "pipeline")
        if body.get(name)
    }
    weights = body.get("weights")
    if isinstance(weights, str):
        found["weights"] = weights
    elif weights:
        found |= {f"weights {name}": str(value) for name, value in weights.items()}
    if base := body.get("base"):
        found |= {f"base {name}": str(value) for name, value in base.items() if value}
    flow = body.get("flow_run")
    if flow:
        found["Prefect flow run"] = str(flow["id"] if isinstance(flow, dict) else flow)
    runs: Mapping[str, str] = body.get("runs") or {}
    sent = run_ids([*runs.values(), str(body.get("pipeline") or "")], root)
    for stage, key in runs.items():
        found[f"run of {stage}"] = key
        if key in sent:
            found[f"MLflow run of {stage}"] = sent[key]
    if body.get("pipeline") in sent:
        found["MLflow run of the pipeline"] = sent[body["pipeline"]]
    manifest: Mapping[str, str] = body.get("manifest") or {}
    return found | {f"SHA-256 of {name}": value for name, value in manifest.items()}


def _by_whom(body: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {body[name]}" for name in ("by", "reason", "error") if body.get(name))


def _received(body: Mapping[str, Any]) -> str:
    parts = [f"by {body.get('channel', '?')}"]
    parts += [
        f"{name} {body[name]}" for name in ("requester", "ground", "received_at", "due_at") if name in body
    ]
    return ", ".join(parts)


def _audited(body: Mapping[str, Any]) -> str:
    figures = body.get("figures") or {}
    shown = [
        f"{name} {figures[name]:.3f} [{figures.get(f'{name}/low', float('nan')):.3f}, "
        f"{figures.get(f'{name}/high', float('nan')):.3f}]"
        for name in ("audit/auc", "audit/val_acc_loss")
        if name in figures
    ]
    return "; ".join([f"{body['method']}: {body['verdict']}", *shown, f"{body['decision']}: {body['why']}"])


TELL: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "received": _received,
    "rejected": lambda body: f"{len(body.get('problems', ()))} problem(s)",
    "duplicate": lambda body: f"of {body.get('first')}",
    "validated": lambda body: f"{len(body.get('samples', ()))} sample(s), as keyed digests",
    "covered": lambda body: (
        f"{len(body.get('samples', ()))} of its samples were erased with {body.get('batch')}"
    ),
    "batched": lambda body: f"{len(body.get('requests', ()))} request(s), {body.get('count')} sample(s)",
    "started": lambda body: f"attempt {body.get('attempt')}: {body.get('method')}",
    "audited": _audited,
    "promoted": lambda body: f"{body.get('method')}, {body.get('guarantee')}, version {body.get('version')}",
    "purged": lambda body: f"{len(body.get('checklist', ()))} lines in the checklist",
    "closed": lambda _: "certificate written",
}
"""What to say of each kind of event; of the others, who did it and why."""
