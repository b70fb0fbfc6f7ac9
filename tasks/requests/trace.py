"""The way from a request to the weights it changed, and back from a model, a run or a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.reporting import pages
from tasks.requests import events as facts
from tasks.requests.chain import Event
from tasks.requests.commits import BATCH, REQUESTS, STEP, now, trailers_of
from tasks.requests.desk import Desk
from tasks.requests.events import Fact, OfBatch
from tasks.requests.request import Request
from tasks.tracking import run_ids

Matches = Callable[[Fact], bool]


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
        return asdict(self)


def by_model(version: str) -> Matches:
    """Events about a version of the registered model, or about weights by 12 digits of their SHA-256."""

    def matches(fact: Fact) -> bool:
        links = fact.links()
        if version in (links.get("version"), links.get("base version")):
            return True
        known = [value for name, value in links.items() if "weights" in name]
        return len(version) >= 12 and any(value.startswith(version) for value in known)

    return matches


def by_run(run: str, root: Path) -> Matches:
    """Events about a run: a stage's or pipeline's key, MLflow's id of either, or a Prefect flow run's id."""

    def matches(fact: Fact) -> bool:
        links = fact.links()
        keys = [value for name, value in links.items() if name.startswith("run of ") or name == "pipeline"]
        return run in keys or run == links.get("Prefect flow run") or run in run_ids(keys, root).values()

    return matches


def by_commit(commit: str, root: Path) -> Matches:
    """Events about a Git commit, by seven digits or more, and by what it became in a rewritten history."""
    said = trailers_of(root, commit) if len(commit) >= 7 else {}

    def matches(fact: Fact) -> bool:
        if len(commit) >= 7 and fact.links().get("commit", "").startswith(commit):
            return True
        own = {"promoted": facts.Promoted, "purged": facts.Purged}.get(said.get(STEP, ""))
        return own is not None and isinstance(fact, own) and fact.batch == said.get(BATCH)

    return matches


def requests_of(desk: Desk, matches: Matches, what: str) -> list[Request]:
    """Return the requests that an event of this kind is about.

    Raises
    ------
    ExpungeError
        If there is none.
    """
    about = {event.request for event in desk.ledger.events() if event.request and matches(event.fact)}
    found = [row.request for row in desk.ledger.rows() if row.request in about or row.batch in about]
    if not found:
        raise ExpungeError(f"the ledger has no request that {what} is about")
    return [desk.show(request) for request in found]


def trace(request: Request, root: Path) -> list[Step]:
    """Return the chain of one request, with what its batch did, oldest link first."""
    events = sorted([*request.events, *request.of_batch], key=lambda event: event.seq)
    return list(_steps(events, root))


def render(chains: Mapping[str, Sequence[Step]]) -> str:
    """Return the chains as one self-contained page."""
    return pages.render("trace.html", {"chains": chains})


def _steps(events: Sequence[Event], root: Path) -> Iterator[Step]:
    told_by_batch = {event.kind for event in events if isinstance(event.fact, facts.Attempt | facts.Audit)}
    for event in events:
        fact = event.fact
        if told_by_batch and isinstance(fact, facts.Started | facts.Audited) and not fact.told_here:
            if isinstance(fact, facts.Audited) and fact.held_out:
                yield Step(event.seq, event.at, event.kind, fact.told(), {})
            continue  # the batch's own event, just before it, tells more
        ids = _ids(fact, root)
        if became := now(root, ids["commit"], _said(event)) if "commit" in ids else None:
            ids["commit now"] = became
        yield Step(event.seq, event.at, event.kind, fact.told(), ids)


def _said(event: Event) -> dict[str, str]:
    """What the commit of a step says, if processing made it for that step."""
    match event.fact:
        case facts.Promotion():
            return {BATCH: event.request or "", STEP: "promoted"}
        case facts.Purge():
            return {BATCH: event.request or "", STEP: "purged"}
        case facts.Promoted() | facts.Purged() if event.fact.told_here:
            return {BATCH: event.fact.batch, STEP: event.kind, REQUESTS: event.request or ""}
    return {}


def _ids(fact: Fact, root: Path) -> dict[str, str]:
    """Every name by which a link is found in another store, MLflow's own ids of runs among them."""
    found = dict(fact.links())
    if (
        isinstance(fact, OfBatch)
        and not fact.told_here
        and not isinstance(fact, facts.Closed | facts.Batched)
    ):
        return {}
    keys = {name: key for name, key in found.items() if name.startswith("run of ") or name == "pipeline"}
    sent = run_ids(keys.values(), root)
    for name, key in keys.items():
        if key in sent:
            found["MLflow run of the pipeline" if name == "pipeline" else f"MLflow {name}"] = sent[key]
    return found
