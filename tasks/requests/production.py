"""The model in production, as the ledger tells it, and the registry that follows it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.requests import events as facts
from tasks.requests.chain import Event
from tasks.requests.events import BASES, Base
from tasks.requests.ledger import Ledger

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.tracking.model_registry import Models

BASE = Path("data/base")
"""Where the weights in production lie; the next batch starts from them."""

OFF = "EXPUNGE_TRACKING"


def base_of(event: Event) -> Base | None:
    """Return the model that an event puts into production; ``None`` if it is no such event."""
    match event.fact:
        case facts.Adopted() | facts.RolledBack() | facts.Promotion():
            return event.fact.base
        case facts.Promoted():  # of a ledger of before
            told = event.fact.of_batch()
            return told.base if isinstance(told, facts.Promotion) else None
    return None


def changes(events: Iterable[Event]) -> list[tuple[Event, Base]]:
    """Return the events that put a model into production, with the model."""
    return [(event, base) for event in events if (base := base_of(event))]


def in_production_before(ledger: Ledger, promotion: int) -> list[Base]:
    """Return the models that were in production since the promotion before that of event ``promotion``.

    One is the model that the batch began with. Others, where a file of weights was adopted or an earlier
    model brought back, knew its samples as well.
    """
    found: list[Base] = []
    for event, base in reversed(changes(ledger.events(kinds=BASES))):
        if event.seq < promotion:
            found.append(base)
            if isinstance(event.fact, facts.Promotion | facts.Promoted):
                break
    return found


def in_production(ledger: Ledger) -> Base | None:
    """Return the model that the ledger says is in production."""
    event = ledger.last(BASES[:2] + BASES[3:])
    current = base_of(event) if event else None
    if current is None or ledger.last(("batch-promoted",)) is None:  # perhaps a ledger of before
        found = changes(ledger.events(kinds=BASES))
        return found[-1][1] if found else None
    return current


def origin_of(ledger: Ledger, weights: str, before: int) -> Event | None:
    """Return the adoption of the file of weights that a model was made of; ``None`` if it was trained here.

    Parameters
    ----------
    ledger
        Tells which model was made of which.
    weights
        Of a model that was in production.
    before
        Number of an event when it was.
    """
    if not any(_is_of_a_file(event) for event in ledger.events(kinds=(facts.Adopted.kind,))):
        return None
    known = [each for each in changes(ledger.events(kinds=BASES)) if each[0].seq < before]
    while known:
        event, base = known.pop()
        if base.weights != weights or isinstance(event.fact, facts.RolledBack):
            continue  # who brought it back did not make it
        if isinstance(event.fact, facts.Adopted):
            return event if _is_of_a_file(event) else None
        promotion = event.fact.of_batch() if isinstance(event.fact, facts.Promoted) else event.fact
        if not isinstance(promotion, facts.Promotion) or promotion.method == facts.EXACT:
            return None
        weights = _made_of(ledger, event) or (known[-1][1].weights if known else "")
    return None


def _is_of_a_file(event: Event) -> bool:
    return isinstance(event.fact, facts.Adopted) and event.fact.stated is not None


def _made_of(ledger: Ledger, promotion: Event) -> str | None:
    """Weights of the model that a batch began with before its promotion."""
    of_batch = ledger.events(promotion.request) if promotion.request else []
    started = [each.fact for each in of_batch if each.seq < promotion.seq]
    return next((each.base.weights for each in reversed(started) if isinstance(each, facts.Attempt)), None)


def models(params: Params, root: Path) -> Models | None:
    """Connect to MLflow's registry; ``None`` where EXPUNGE_TRACKING is ``off``.

    Raises
    ------
    UnavailableError
        If MLflow does not answer.
    """
    if os.environ.get(OFF) == "off":
        return None
    from tasks.requests.settings import settings_of
    from tasks.tracking.model_registry import Models

    return Models(params.tracking, settings_of(params).model, root)
