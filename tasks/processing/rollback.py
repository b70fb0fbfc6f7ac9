"""An earlier version into production again: only one that knows nothing erased since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.processing import production
from tasks.requests import events as facts
from tasks.requests.chain import Event
from tasks.requests.desk import Desk
from tasks.requests.events import BASES, Base
from tasks.requests.production import changes, models


def why_forbidden(made: Sequence[tuple[Event, Base]], version: str) -> str | None:
    """Return why a version must not come back, or ``None`` if it may.

    A version may come back only if nothing was promoted after it: whatever was in production before the
    latest promotion was made with samples that this promotion erased.

    Parameters
    ----------
    made
        The events that put a model into production, as of :func:`tasks.requests.production.changes`.
    version
        Of the registered model.
    """
    known = [event for event, base in made if base.version == version]
    if not known:
        return f"version {version} was never in production; nothing says what it has seen"
    # what a batch erased is told by its promotion, and the same version may have been promoted by several
    later = [
        event
        for event, base in made
        if isinstance(event.fact, facts.Promotion | facts.Promoted)
        and event.seq > known[-1].seq
        and base.version != version
    ]
    if later:
        names = ", ".join(dict.fromkeys(str(event.request) for event in later))
        return f"version {version} knows samples that were erased since, by {names}"
    return None


def roll_back(desk: Desk, params: Params, root: Path, version: str, *, by: str, reason: str) -> Base:
    """Move production to an earlier version, and record who did it and why.

    Raises
    ------
    ExpungeError
        If the version knows erased samples, or its weights cannot be had.
    """
    made = changes(desk.ledger.events(kinds=BASES))
    if refusal := why_forbidden(made, version):
        raise ExpungeError(f"{refusal}; it must not return to production")
    target = next(base for _, base in reversed(made) if base.version == version)
    production.check_base(target.weights)
    registry = models(params, root)
    if registry is not None:
        registry.promote(version)
    desk.record(facts.RolledBack(version=target.version, weights=target.weights, by=by, reason=reason))
    return target
