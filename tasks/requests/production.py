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


def in_production(ledger: Ledger) -> Base | None:
    """Return the model that the ledger says is in production."""
    event = ledger.last(BASES[:2] + BASES[3:])
    current = base_of(event) if event else None
    if current is None or ledger.last(("batch-promoted",)) is None:  # perhaps a ledger of before
        found = changes(ledger.events(kinds=BASES))
        return found[-1][1] if found else None
    return current


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
