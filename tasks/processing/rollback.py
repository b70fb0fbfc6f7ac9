"""An earlier version into production again: only one that knows nothing erased since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.processing import production
from tasks.requests.desk import Desk
from tasks.requests.ledger import Event
from tasks.requests.production import CHANGES, Production, models


def why_forbidden(events: Sequence[Event], version: str) -> str | None:
    """Return why a version must not come back, or ``None`` if it may.

    A version may come back only if nothing was promoted after it: whatever was in production before the
    latest promotion was made with samples that this promotion erased.
    """
    made = [event for event in events if event.kind in CHANGES]
    known = [event for event in made if event.body["version"] == version]
    if not known:
        return f"version {version} was never in production; nothing says what it has seen"
    # what a batch erased is told by its promotion, and the same version may have been promoted by several
    later = [
        event
        for event in made
        if event.kind == "promoted" and event.seq > known[-1].seq and event.body["version"] != version
    ]
    if later:
        names = ", ".join(dict.fromkeys(str(event.request) for event in later))
        return f"version {version} knows samples that were erased since, for {names}"
    return None


def roll_back(desk: Desk, params: Params, root: Path, version: str, *, by: str, reason: str) -> Production:
    """Move production to an earlier version, and record who did it and why.

    Raises
    ------
    ExpungeError
        If the version knows erased samples, or its weights cannot be had.
    """
    events = desk.ledger.events()
    if refusal := why_forbidden(events, version):
        raise ExpungeError(f"{refusal}; it must not return to production")
    wanted = next(
        event.body["weights"]
        for event in reversed(events)
        if event.kind in CHANGES and event.body["version"] == version
    )
    production.check_base(wanted)
    registry = models(params, root)
    if registry is not None:
        registry.promote(version)
    target = Production(version, wanted)
    with desk.ledger.writing() as writer:
        writer.append("rolled-back", **target.as_json(), by=by, reason=reason)
    return target
