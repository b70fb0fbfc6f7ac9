"""Batches: which requests are carried out together, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tasks.requests.desk import Desk, Request, new_id
from tasks.requests.ledger import Event, latest, stamp
from tasks.requests.settings import Settings
from tasks.requests.states import Status

IN_PROGRESS = frozenset(
    {Status.BATCHED, Status.RUNNING, Status.AUDITED, Status.PROMOTED, Status.PURGED, Status.FAILED}
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

    def latest(self, kind: str) -> Event | None:
        """Return the latest event of a kind."""
        return latest(self.requests[0].events, kind)

    def count(self, kind: str) -> int:
        """How often something has happened."""
        return sum(event.kind == kind for event in self.requests[0].events)

    def record(
        self, desk: Desk, kind: str, *, own: Mapping[str, Mapping[str, Any]] | None = None, **body: Any
    ) -> Batch:
        """Append one event a request, all or none; return the batch as it stands then.

        ``own`` holds what is to be told of a request alone, by its id.
        """
        with desk.ledger.writing() as writer:
            for request in self.requests:
                writer.append(kind, request.id, batch=self.id, **body, **(own or {}).get(request.id, {}))
        return Batch(self.id, tuple(desk.show(name) for name in self.names))


def in_progress(requests: Sequence[Request]) -> list[Batch]:
    """Return the batches that have been opened and are not closed, oldest first.

    Requests of a batch that stand at different points, as when one of them is on hold, are apart.
    """
    grouped: dict[tuple[str, Status], list[Request]] = {}
    for request in requests:
        if request.state.status in IN_PROGRESS and request.batch:
            grouped.setdefault((request.batch, request.state.status), []).append(request)
    return [Batch(batch, tuple(members)) for (batch, _), members in grouped.items()]


def choose(ready: Sequence[Request], settings: Settings, at: datetime) -> list[Request]:
    """Return the requests of the next batch; none while it is too early.

    The oldest come first, as many as ``batch_limit`` samples allow, but one at least.
    """
    waiting = sorted(ready, key=lambda request: request.received_at or "")
    old = stamp(at - timedelta(hours=settings.batch_hours))
    at_risk = timedelta(days=settings.at_risk_days)
    begins = sum(request.count or 0 for request in waiting) >= settings.batch_size or any(
        (request.received_at or "") <= old or request.urgency(at, at_risk) != "on time" for request in waiting
    )
    chosen: list[Request] = []
    room = settings.batch_limit
    for request in waiting if begins else ():
        room -= request.count or 0
        if chosen and room < 0:
            break
        chosen.append(request)
    return chosen


def open_batch(desk: Desk, chosen: Sequence[Request]) -> Batch:
    """Record that these requests are carried out together."""
    batch = Batch(f"batch-{new_id(desk.clock())}", tuple(chosen))
    return batch.record(
        desk, "batched", count=sum(request.count or 0 for request in chosen), requests=batch.names
    )
