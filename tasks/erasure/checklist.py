"""The checklist of a purge: what became of the copies in every store, said so that it can be recorded.

Lines go into the ledger and the certificate, so they hold counts and names of stores, and never an id, a path
or a file name. What each of them is about stands in the details, which stay on this machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of the copies in a store."""

    DELETED = "deleted"
    NOTHING_FOUND = "nothing-found"
    MADE_AGAIN = "made-again"
    """The old version is gone, a new one without the samples is there."""
    KEPT_SHARED = "kept-shared"
    """Data that stays needs it: it is that data's own copy."""
    KEPT_REPORTED = "kept-reported"
    """It tells of samples and was not made by this repository: a person must look."""
    LEFT_BEHIND = "left-behind"
    """This repository made it, and it is still there though it should have been deleted: a fault."""
    NAMED_ALIKE = "named-alike"
    """A path there ends like a sample's name, or a number is one: it may be anybody's, and stays."""
    NOT_OPENED = "not-opened"
    """A content that the search cannot open, or not to its end; it is named by its kind."""
    SEALED = "sealed"
    NOT_SEARCHED = "not-searched"
    """It cannot be searched, today or later, until a person changes something."""
    UNREACHABLE = "unreachable"
    """It does not answer; the search is tried again."""
    NOT_APPLICABLE = "not-applicable"
    CANNOT_BE_REACHED = "cannot-be-reached"
    """It lies outside of what a purge can know, such as backups."""


HOLDS = frozenset({
    Outcome.DELETED, Outcome.NOTHING_FOUND, Outcome.MADE_AGAIN, Outcome.KEPT_SHARED, Outcome.NOT_APPLICABLE,
    Outcome.CANNOT_BE_REACHED, Outcome.NAMED_ALIKE, Outcome.NOT_OPENED,
})  # fmt: skip
FAULTS = frozenset({Outcome.NOT_SEARCHED, Outcome.LEFT_BEHIND})
"""A person can mend what is the reason, and then search again: it is told until that is done."""

NEEDS_PERSON = FAULTS | {Outcome.KEPT_REPORTED}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the checklist; nothing in it names a sample.

    Attributes
    ----------
    store
        The store's name.
    scope
        What of the store was searched or dealt with, and how.
    outcome
        What became of it.
    count
        The number of things that this is about.
    detail
        A sentence more, the same for every sample.
    """

    store: str
    scope: str
    outcome: Outcome
    count: int = 0
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether it means that nothing of the samples is left there."""
        return self.outcome in HOLDS

    @property
    def open(self) -> bool:
        """Whether it is to be tried again."""
        return self.outcome is Outcome.UNREACHABLE

    def as_json(self) -> dict[str, str | int]:
        """All of it, as events hold it."""
        return {**asdict(self), "outcome": str(self.outcome)}

    def __str__(self) -> str:
        parts = (self.store, f"{self.scope}: {self.outcome}", str(self.count or ""), self.detail)
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Detail:
    """What a line is about, by name: printed and logged on this machine, never recorded.

    Attributes
    ----------
    store
        The store's name.
    item
        A path, an object's MD5, an id.
    outcome
        What became of it.
    why
        What was found, or what went wrong.
    """

    store: str
    item: str
    outcome: Outcome
    why: str

    def as_json(self) -> dict[str, str]:
        """All of it."""
        return {**asdict(self), "outcome": str(self.outcome)}


@dataclass(frozen=True, slots=True)
class Checklist:
    """The lines, and what stands behind them.

    Attributes
    ----------
    lines
        For the record.
    details
        For this machine.
    weights
        :func:`~tasks.engine.weights.tensor_digest` of all models that were made of the samples and had to go:
        for the record, so that a later search knows them.
    """

    lines: tuple[Line, ...]
    details: tuple[Detail, ...] = ()
    weights: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    @property
    def holds(self) -> bool:
        """Whether nothing is left in any store."""
        return all(line.holds for line in self.lines)

    @property
    def open(self) -> tuple[str, ...]:
        """Names of the stores that are to be tried again."""
        return tuple(dict.fromkeys(line.store for line in self.lines if line.open))


def counted(details: Iterable[Detail], scope: str, reasons: dict[Outcome, str]) -> list[Line]:
    """Return a line for each store and outcome among details.

    Parameters
    ----------
    details
        Of one or more stores.
    scope
        Of every line.
    reasons
        The sentence that a line has more, by outcome.
    """
    counts = Counter((detail.store, detail.outcome) for detail in details)
    return [
        Line(store, scope, outcome, count, reasons.get(outcome, ""))
        for (store, outcome), count in counts.items()
    ]
