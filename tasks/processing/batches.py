"""Batches: which requests are carried out together, and where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from tasks.requests import events as facts
from tasks.requests.chain import stamp
from tasks.requests.desk import Desk, new_id, urgency
from tasks.requests.events import Fact
from tasks.requests.request import Request
from tasks.requests.settings import Settings
from tasks.requests.standing import Row
from tasks.requests.states import Status

F = TypeVar("F", bound=Fact)

IN_PROGRESS = frozenset(
    {
        Status.BATCHED,
        Status.RUNNING,
        Status.AUDITED,
        Status.PROMOTING,
        Status.PROMOTED,
        Status.PURGING,
        Status.PURGED,
        Status.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests of one batch that stand at the same point."""

    id: str
    requests: tuple[Request, ...]

    @property
    def status(self) -> Status:
        """Where they stand."""
        status = self.requests[0].state.status
        assert status is not None  # noqa: S101
        return status

    @property
    def names(self) -> list[str]:
        """Ids of the requests."""
        return [request.id for request in self.requests]

    @property
    def members(self) -> str:
        """SHA-256 over the ids of the requests: whoever leaves the batch changes it."""
        return hashlib.sha256("\n".join(sorted(self.names)).encode()).hexdigest()

    def free(self) -> Batch:
        """Return those of its requests that are not on legal hold."""
        return Batch(self.id, tuple(request for request in self.requests if not request.state.held))

    def common(self, fact: type[F]) -> F | None:
        """Return what the batch's last event of a kind tells."""
        return self.requests[0].common(fact)

    def count(self, fact: type[Fact]) -> int:
        """How often something has happened to its first request."""
        return sum(event.kind == fact.kind for event in self.requests[0].events)

    def record(
        self,
        desk: Desk,
        common: Fact | None,
        own: type[Fact],
        told: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Batch:
        """Append an event of the batch and one of each request, all or none; return the batch as it is then.

        Parameters
        ----------
        desk
            Keeps the ledger.
        common
            What is told of the batch as a whole.
        own
            Kind of event of each request.
        told
            What is to be told of a request alone, by its id.
        """
        with desk.writing() as writer:
            if common is not None:
                writer.append(common, self.id)
            for request in self.requests:
                fields = (told or {}).get(request.id, {})
                writer.append(own.model_validate({"batch": self.id, **fields}), request.id)
        return Batch(self.id, tuple(desk.show(name) for name in self.names))


def in_progress(desk: Desk) -> list[Batch]:
    """Return the batches that have been opened and are not closed, oldest first.

    Requests of a batch that stand at different points, as when one of them is on hold, are apart.
    """
    grouped: dict[tuple[str, Status], list[str]] = {}
    for row in desk.ledger.rows(only_open=True):
        if row.status in IN_PROGRESS and row.batch:
            grouped.setdefault((row.batch, row.status), []).append(row.request)
    return [Batch(batch, tuple(map(desk.show, names))) for (batch, _), names in sorted(grouped.items())]


def choose(ready: Sequence[Row], settings: Settings, at: datetime) -> list[Row]:
    """Return the requests of the next batch; none while it is too early.

    The oldest come first, as many as ``batch_limit`` samples allow, but one at least.
    """
    waiting = sorted(ready, key=lambda row: row.received_at or "")
    old = stamp(at - timedelta(hours=settings.batch_hours))
    at_risk = timedelta(days=settings.at_risk_days)
    begins = sum(row.samples or 0 for row in waiting) >= settings.batch_size or any(
        (row.received_at or "") <= old or urgency(row, at, at_risk) != "on time" for row in waiting
    )
    chosen: list[Row] = []
    room = settings.batch_limit
    for row in waiting if begins else ():
        room -= row.samples or 0
        if chosen and room < 0:
            break
        chosen.append(row)
    return chosen


def open_batch(desk: Desk, chosen: Sequence[str], checkout: str = "") -> Batch:
    """Record that these requests are carried out together."""
    requests = tuple(desk.show(name) for name in chosen)
    batch = Batch(f"batch-{new_id(desk.clock())}", requests)
    samples = sum(request.count or 0 for request in requests)
    opened = facts.Opened(requests=len(requests), samples=samples, checkout=checkout or None)
    return batch.record(desk, opened, facts.Batched)
