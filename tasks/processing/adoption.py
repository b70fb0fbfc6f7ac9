"""Weights that were not trained here go into production: registered, recorded, committed.

Nothing is changed before all checks are passed. After that each effect can be repeated, and the event in the
ledger follows them: whatever ends the process, the same command brings it to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.core.temporary import temporary_folder
from tasks.engine.weights import Info, store
from tasks.processing import checkout, production
from tasks.processing.batches import in_progress
from tasks.processing.candidate import Candidate
from tasks.processing.repository import OURS, Repository
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.events import BASES, Base
from tasks.requests.heldout import HELDOUT, listed
from tasks.requests.production import changes, in_production, models

STAGE = "adopt"
"""What the run in MLflow is called that holds the weights."""

FILE = "expunge.file.sha256"
"""Tag of that run, and of the version: SHA-256 of the file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is in production, the commit that says so, and whether anything was changed."""

    base: Base
    commit: str
    is_new: bool


def adopt(candidate: Candidate, desk: Desk, params: Params, root: Path, *, replace: bool) -> Outcome:
    """Put weights into production: registry and alias, ``data/base``, ledger, commit.

    Parameters
    ----------
    candidate
        As :func:`examine` returned it.
    desk, params, root
        The record, the parameters and the checkout.
    replace
        Whether they may take the place of a model that is in production.

    Raises
    ------
    ExpungeError
        If they must not, requests are being carried out, the checkout has changes that are not committed, or
        the record is not whole.
    """
    repository = Repository(root)
    repository.refuse_changes()
    desk.check_whole(repository.anchors())
    current = in_production(desk.ledger)
    is_new = not _is_told(candidate, desk, current)
    if is_new:
        _refuse(candidate, desk, current, replace=replace)
    checkout.ensure(desk, root, candidate.stated.by)
    registry = models(params, root)
    with temporary_folder(root) as folder:
        info = store(folder, candidate.model, candidate.info)
        version = current.version if current and not is_new else None
        if registry and version is None:
            version = _registered(registry, folder, info, candidate.stated, desk, root)
        production.take_over(folder, candidate.heldout)
    if registry and version:
        registry.promote(version)
    if is_new:
        desk.record(
            facts.Adopted(
                version=version, weights=info.sha256, commit=repository.head, val_acc=candidate.val_acc,
                stated=candidate.stated, replaces=current,
            )
        )  # fmt: skip
    base = Base(version=version, weights=info.sha256)
    return Outcome(base, _committed(repository, desk, base), is_new)


def _is_told(candidate: Candidate, desk: Desk, current: Base | None) -> bool:
    """Whether the ledger tells of these weights in production, with the same statement, whoever made it."""
    if current is None or current.weights != candidate.info.sha256:
        return False
    event, _ = changes(desk.ledger.events(kinds=BASES))[-1]
    if not isinstance(event.fact, facts.Adopted) or event.fact.stated is None:
        return False
    stated = candidate.stated.model_copy(update={"by": event.fact.stated.by})
    known = set(listed()) if HELDOUT.exists() else None
    return event.fact.stated == stated and known in (None, set(candidate.heldout))


def _refuse(candidate: Candidate, desk: Desk, current: Base | None, *, replace: bool) -> None:
    """See that nothing speaks against it.

    Raises
    ------
    ExpungeError
        With what does.
    """
    if batches := in_progress(desk):
        raise ExpungeError(
            f"{batches[0].id} is {batches[0].status}, and its result would replace what is adopted now; "
            "let it end (expunge process), or refuse its requests, then run this again"
        )
    if current is not None and not replace:
        same = current.weights == candidate.info.sha256
        what = "these weights are in production already, with another statement" if same else (
            f"version {current.version}, weights {current.weights[:12]}…, is in production"
        )  # fmt: skip
        raise ExpungeError(f"{what}; --replace puts what is adopted now in its place")
    if batch := _learned_and_erased(desk, candidate.info.sha256):
        raise ExpungeError(
            f"these weights are known: they have learned samples that were erased since, by {batch}; "
            "they must not return to production"
        )


def _learned_and_erased(desk: Desk, weights: str) -> str | None:
    """Return the batch since whose promotion weights that the ledger knows must not be used any more."""
    kinds = (facts.Attempt.kind, facts.Audit.kind, facts.Purge.kind, *BASES)
    events = desk.ledger.events(kinds=kinds)
    promoted = [
        (event, base) for event, base in changes(events)
        if isinstance(event.fact, facts.Promotion | facts.Promoted)
    ]  # fmt: skip
    made = [event.seq for event, base in changes(events) if base.weights == weights]
    known = made or [event.seq for event in events if weights in _weights_of(event.fact)]
    later = [event for event, base in promoted if known and event.seq > known[-1] and base.weights != weights]
    return str(later[-1].request) if later else None


def _weights_of(fact: facts.Fact) -> set[str]:
    """Weights that an event names beside those that it puts into production."""
    told = (fact.of_batch() if isinstance(fact, facts.OfBatch) else None) or fact
    match told:
        case facts.Attempt():
            return {told.base.weights}
        case facts.Audit():
            return {told.weights.original, told.weights.result}
        case facts.Purge():
            return set(told.void_weights)
    return set()


def _registered(
    registry: Any, folder: Path, info: Info, stated: facts.Stated, desk: Desk, root: Path
) -> str | None:
    """Make the weights a version of the registered model, unless they are one; return the version."""
    from tasks.tracking.__main__ import flush

    for version in registry.versions():
        if (version.weights, version.tags.get(FILE)) == (info.sha256, stated.file):
            return str(version.version)
    tags = {"expunge.adopted": "true", FILE: stated.file, "expunge.by": stated.by}
    flush(root, timeout=120)  # what a run that was killed has left
    known = [
        run["key"]
        for run in registry.runs_with(FILE, stated.file)
        if (run["stage"], run["tags"].get("weights.sha256")) == (STAGE, info.sha256)
    ]
    key = known[-1] if known else production.record(STAGE, folder, root, registry, tags)
    at = desk.clock().isoformat(timespec="seconds")
    told = {**tags, "expunge.adopted.at": at, "expunge.ledger": str(desk.ledger.head())}
    return production.register(registry, key, info.sha256, root, told, folder)


def _committed(repository: Repository, desk: Desk, base: Base) -> str:
    """Anchor the event in a commit, unless one holds it; return the commit."""
    head = desk.ledger.head()
    if repository.last_anchor() == head:
        return repository.head
    trailers = {
        "Expunge-Step": "adopted",
        **({"Expunge-Model": f"{desk.settings.model}/{base.version}"} if base.version else {}),
        "Expunge-Weights": base.weights,
        "Expunge-Ledger": str(head),
    }
    return repository.commit("Adopt a model that was not trained here", OURS, trailers)
