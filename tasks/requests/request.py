"""A request, as its events and those of its batch tell it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from tasks.requests import events as facts
from tasks.requests.chain import Event, latest
from tasks.requests.events import Fact, OfBatch
from tasks.requests.keys import references
from tasks.requests.schema import Problem
from tasks.requests.states import ENDED, State

F = TypeVar("F", bound=Fact)

ID = re.compile(r"[0-9]{8}-[0-9a-f]{8}")
"""What a request's id looks like."""


def new_id(at: datetime, suffix: str | None = None) -> str:
    """Return an id such as ``20260501-9f86d081``: the day, and 32 random bits if no suffix is given."""
    return f"{at:%Y%m%d}-{suffix or secrets.token_hex(4)}"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes
    ----------
    id, state
        Its id, and where it stands.
    events
        What is told of the request itself.
    of_batch
        What is told of the batch that carries it out, if there is one.
    """

    id: str
    state: State
    events: tuple[Event, ...]
    of_batch: tuple[Event, ...] = ()

    def latest(self, fact: type[F]) -> F | None:
        """Return what its last event of a kind tells."""
        return latest(self.events, fact)

    def common(self, fact: type[F]) -> F | None:
        """Return what the last event of a kind tells of its batch, wherever the ledger has it."""
        if found := latest(self.of_batch, fact):
            return found
        return next(iter(reversed(self.all_common(fact))), None)

    def all_common(self, fact: type[F]) -> list[F]:
        """Return what every event of a kind tells of its batch, oldest first."""
        found = [event.fact for event in self.of_batch if event.kind == fact.kind]
        if not found:  # a ledger of before told it in the request's own events
            own = (event.fact for event in self.events)
            found = [told for each in own if isinstance(each, OfBatch) and (told := each.of_batch())]
        return [each for each in found if isinstance(each, fact)]

    @property
    def open(self) -> bool:
        """Whether anything is still to be done."""
        return self.state.status not in ENDED

    @property
    def received(self) -> facts.Received:
        """How it arrived."""
        found = self.latest(facts.Received)
        return found or facts.Received()

    @property
    def received_at(self) -> str | None:
        """When it reached the controller; ``None`` if it could not be read."""
        return self.received.received_at

    @property
    def due_at(self) -> str | None:
        """When it must be done; ``None`` if it could not be read."""
        extended = self.latest(facts.Extended)
        return (extended.due_at if extended else None) or self.received.due_at

    @property
    def batch(self) -> str | None:
        """The batch that carries it out."""
        for event in reversed(self.events):
            if isinstance(event.fact, facts.Unbatched):
                return None
            if isinstance(event.fact, facts.Batched):
                return event.fact.batch
        return None

    @property
    def first(self) -> str | None:
        """The request whose samples it names too."""
        for event in reversed(self.events):
            if isinstance(event.fact, facts.Advanced):
                return None
            if isinstance(event.fact, facts.Behind | facts.Duplicate):
                return event.fact.first or None
        return None

    @property
    def holds(self) -> Mapping[str, facts.Held]:
        """Every hold that is on it, by the id of the standing hold; a person's own under the empty name."""
        found: dict[str, facts.Held] = {}
        for event in self.events:
            match event.fact:
                case facts.Held() as held:
                    found[held.standing or ""] = held
                case facts.Released(standing=standing):
                    found.pop(standing or "", None)
        return found

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why it was rejected, without the values."""
        rejected = self.latest(facts.Rejected)
        found = rejected.problems if rejected else ()
        return tuple(Problem(each.line, each.where, each.what) for each in found)

    @property
    def count(self) -> int | None:
        """Number of its samples."""
        validated = self.latest(facts.Validated)
        return None if validated is None else len(validated.samples)

    @cached_property
    def digests(self) -> Mapping[str, frozenset[str]]:
        """Keyed digests of its samples by kind of name."""
        validated = self.latest(facts.Validated)
        samples = validated.samples if validated else ()
        kinds = {kind for sample in samples for kind in sample}
        return {kind: frozenset(sample[kind] for sample in samples if kind in sample) for kind in kinds}

    @cached_property
    def remaining(self) -> frozenset[str]:
        """Keyed digests of the ids of its samples that no other batch has erased."""
        covered = {
            digest
            for event in self.events
            if isinstance(event.fact, facts.Covered)
            for digest in event.fact.samples
        }
        return self.digests.get("id", frozenset()) - covered

    @cached_property
    def content(self) -> tuple[Mapping[str, str], ...]:
        """Keyed digests of what its samples look like, from when they were erased."""
        told = (event.fact for event in self.events)
        known = [each.content for each in told if isinstance(each, facts.Audited | facts.Covered)]
        found = {tuple(sorted(entry.items())): entry for content in known for entry in content}
        return tuple(found[name] for name in sorted(found))


class Recognition:
    """Tells which ids a request means: the one place that compares names with keyed digests.

    Parameters
    ----------
    key
        The request's.
    wanted
        Keyed digests of ids, each a :func:`tasks.requests.keys.reference` of kind ``id``.

    Attributes
    ----------
    digest
        Returns the keyed digest of an id.
    """

    def __init__(self, key: bytes, wanted: Iterable[str]) -> None:
        self._wanted = frozenset(wanted)
        self.digest = references(key, "id")

    @classmethod
    def of_all(cls, request: Request, key: bytes) -> Recognition:
        """Recognise all samples of a request."""
        return cls(key, request.digests.get("id", frozenset()))

    @classmethod
    def of_remaining(cls, request: Request, key: bytes) -> Recognition:
        """Recognise the samples of a request that no other batch has erased."""
        return cls(key, request.remaining)

    def means(self, sample_id: str) -> bool:
        """Whether a sample is meant."""
        return self.digest(sample_id) in self._wanted

    def among(self, ids: Iterable[str]) -> list[str]:
        """Return those of some ids that are meant, in their order."""
        if not self._wanted:
            return []
        return [sample_id for sample_id in ids if self.means(sample_id)]
