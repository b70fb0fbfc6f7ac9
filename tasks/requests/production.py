"""The model in production, as the ledger tells it, and the registry that follows it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.requests.ledger import Event
from tasks.requests.settings import settings_of

if TYPE_CHECKING:
    from tasks.core.params import Params
    from tasks.tracking.model_registry import Models

BASE = Path("data/base")
"""Where the weights in production lie; the next batch starts from them."""

OFF = "EXPUNGE_TRACKING"

CHANGES = frozenset({"adopted", "promoted", "rolled-back"})
"""Kinds of events that put a model into production."""


@dataclass(frozen=True, slots=True)
class Production:
    """The model in production.

    Attributes
    ----------
    version
        Of the registered model; ``None`` if MLflow was switched off.
    weights
        SHA-256 of its tensors.
    """

    version: str | None
    weights: str

    def as_json(self) -> dict[str, Any]:
        """Both, as events hold them."""
        return {"version": self.version, "weights": self.weights}


def in_production(events: Iterable[Event]) -> Production | None:
    """Return the model that the ledger says is in production."""
    found = None
    for event in events:
        if event.kind in CHANGES:
            found = Production(event.body["version"], event.body["weights"])
    return found


def models(params: Params, root: Path) -> Models | None:
    """Connect to MLflow's registry; ``None`` where EXPUNGE_TRACKING is ``off``.

    Raises
    ------
    UnavailableError
        If MLflow does not answer.
    """
    if os.environ.get(OFF) == "off":
        return None
    from tasks.tracking.model_registry import Models

    return Models(params.tracking, settings_of(params).model, root)
