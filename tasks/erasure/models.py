"""MLflow's models that knew what was erased: which they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.erasure.account import MEANING, Account
from tasks.erasure.checklist import Detail, Line, Outcome
from tasks.erasure.identity import bases_of, recorded_weights, replaced_models
from tasks.erasure.ownership import FOREIGN
from tasks.requests.desk import Desk
from tasks.requests.events import Base
from tasks.requests.production import in_production, models
from tasks.requests.request import Request
from tasks.requests.settings import settings_of

if TYPE_CHECKING:
    from tasks.tracking.deletion import Deletion, Void

MODELS = "MLflow"
"""The store's name."""


@dataclass
class Models:
    """The models that MLflow has of the checkout at ``root``."""

    root: Path
    params: Params
    desk: Desk

    def deletion(self) -> Deletion | None:
        """Return what finds and deletes them; ``None`` if tracking is off.

        Raises
        ------
        ExpungeError
            If MLflow does not answer.
        """
        registry = models(self.params, self.root)
        if registry is None:
            return None
        from tasks.tracking.deletion import Deletion

        return Deletion(registry, self.params.tracking.experiment, self.root)

    def void(self, deletion: Deletion, requests: Sequence[Request], objects: set[str]) -> list[Void]:
        """Find models and files that were made of void objects, or were the base of a batch.

        A base may be known by its weights only: an earlier purge took the split that it was trained on.
        """
        bases = {base.weights for base in self._knew(requests)}
        current = in_production(self.desk.ledger)
        return deletion.find(weights=bases, inputs=objects, keep={current.weights} if current else set())

    def delete(self, requests: Sequence[Request], objects: set[str], account: Account) -> list[Line]:
        """Delete or seal what :meth:`void` finds."""
        try:
            deletion = self.deletion()
            if deletion is None:
                return [Line(MODELS, "models", Outcome.NOT_APPLICABLE, 0, "tracking is off")]
            found = self.void(deletion, requests, objects)
            sealed = [each for each in found if self.seals and each.kind != "artifacts" and each.ours]
            gone = [each for each in found if each.ours and each not in sealed]
            deletion.delete(gone)
        except (ExpungeError, OSError) as error:
            return [account.failed(MODELS, error)]
        scope = "models and files of runs that read or wrote void objects; the records of the runs stay"
        foreign = [each for each in found if not each.ours]
        account.details += [
            Detail(MODELS, f"{each.kind} {each.item}", Outcome.KEPT_REPORTED, f"{each.why}; {FOREIGN}")
            for each in foreign
        ]
        lines = [Line(MODELS, scope, Outcome.DELETED if gone else Outcome.NOTHING_FOUND, len(gone))]
        if sealed:
            lines.append(Line(MODELS, scope, Outcome.SEALED, len(sealed), self.sealed))
        if foreign:
            meaning = MEANING[Outcome.KEPT_REPORTED]
            lines.append(Line(MODELS, scope, Outcome.KEPT_REPORTED, len(foreign), meaning))
        return lines

    def superseded(self, requests: Sequence[Request], account: Account) -> Iterator[Line]:
        """Tell of the versions that knew the samples whether they are still there, and which are known."""
        try:
            yield from self._superseded(requests)
        except ExpungeError as error:
            yield account.failed(MODELS, error)
        if any(recorded_weights(request) is None for request in requests):
            why = "only the models that batches started from are known by digest"
            yield Line("models", "weights that learned samples", Outcome.NOT_SEARCHED, 0, why)

    def _superseded(self, requests: Sequence[Request]) -> Iterator[Line]:
        registry = models(self.params, self.root)
        if registry is None:
            yield Line(MODELS, "models", Outcome.NOT_APPLICABLE, 0, "tracking is off")
            return
        current = in_production(self.desk.ledger)
        kept = current.version if current else None
        bases = {base.version for base in self._knew(requests)} - {None, kept}
        there = bases & {version.version for version in registry.versions()}
        if len(there) < len(bases) or not bases:
            outcome = Outcome.DELETED if bases else Outcome.NOTHING_FOUND
            yield Line(MODELS, "versions that knew samples", outcome, len(bases - there))
        if there:
            outcome = Outcome.SEALED if self.seals else Outcome.LEFT_BEHIND
            why = self.sealed if self.seals else "they were not deleted"
            yield Line(MODELS, "versions that knew samples", outcome, len(there), why)

    def _knew(self, requests: Sequence[Request]) -> list[Base]:
        return [*bases_of(requests), *replaced_models(requests, self.desk)]

    @property
    def seals(self) -> bool:
        """Whether what was superseded is kept for a while, under seal."""
        return settings_of(self.params).superseded == "seal"

    @property
    def sealed(self) -> str:
        """Until when, and why."""
        settings = settings_of(self.params)
        return f"until {settings.seal_until}: {settings.seal_reason}"
