"""Legal holds: of a request, and standing ones, which can be there before any request is.

Several holds can be on one request. It is held until the last of them has ended: a person's own, and every
standing hold that was for its requester or for one of its samples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.keys import reference
from tasks.requests.ledger import Writer
from tasks.requests.naming import meant
from tasks.requests.record import Record, own_events
from tasks.requests.request import Recognition, new_id
from tasks.requests.standing import Row
from tasks.requests.states import TransitionError

PREFIX = "hold-"
"""What the id of a standing hold begins with."""


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A hold that can precede requests: for a requester's reference, or for samples."""

    id: str
    at: str
    placed: facts.HoldPlaced


def place(
    record: Record, *, by: str, reason: str, requester: str | None = None, ids: Sequence[str] = ()
) -> str:
    """Hold whatever a requester asks for, or whatever names these samples, now and later; return its id.

    Raises
    ------
    ExpungeError
        If no reason is given, or neither requester nor samples.
    """
    reason = " ".join(reason.split())
    if not reason or bool(requester) == bool(ids):
        raise ExpungeError("a standing hold needs a reason, and a requester's reference or samples")
    hold = f"{PREFIX}{new_id(record.clock())}"
    digests: list[str] = []
    if ids:
        key = record.keys.create(hold)
        record.keys.keep_names(hold, sorted(set(ids)))
        digests = sorted({reference(key, "id", each) for each in ids})
    placed = facts.HoldPlaced(by=by, reason=reason, requester=requester, samples=tuple(digests))
    with record.writing() as writer:
        writer.append(placed, hold)
        for row in writer.rows(only_open=True):
            touches = row.requester == requester if requester else _names_one_of(record, writer, row, ids)
            if touches:
                _catch(writer, row.request, hold, placed)
    return hold


def lift(record: Record, hold: str, *, by: str, reason: str) -> None:
    """End a standing hold, and release the requests that it alone held.

    Raises
    ------
    ExpungeError
        If there is no such hold, or no reason is given.
    """
    reason = " ".join(reason.split())
    with record.writing() as writer:
        if hold not in {each.id for each in standing(record, writer)}:
            raise ExpungeError(f"{hold!r} is no standing hold; expunge holds lists those that stand")
        if not reason:
            raise ExpungeError(f"{hold}: give a reason; the record must say why it was lifted")
        writer.append(facts.HoldLifted(by=by, reason=reason), hold)
        released = facts.Released(by=by, reason=reason, standing=hold)
        for row in writer.rows(only_open=True):
            if row.held and hold in own_events(writer, row.request).holds:
                _release(writer, row.request, released)
    record.keys.forget_names(hold)


def standing(record: Record, writer: Writer | None = None) -> list[StandingHold]:
    """Return the standing holds that have not been lifted."""
    kinds = (facts.HoldPlaced.kind, facts.HoldLifted.kind)
    found: dict[str, StandingHold] = {}
    for event in (writer or record.ledger).events(kinds=kinds):
        if isinstance(event.fact, facts.HoldPlaced):
            found[event.request or ""] = StandingHold(event.request or "", event.at, event.fact)
        else:
            found.pop(event.request or "", None)
    return list(found.values())


def held_samples(record: Record, ids: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    """Name of every hold that stands, of open requests and for samples as such, and which ids it protects.

    Where its key is lost the names beside it tell. Without these it could protect anything: what it protects
    is then all ids, until the key is restored or a person ends the hold.
    """
    for hold in _of_samples(record):
        yield hold.id, _named_by(record, hold, ids)
    for name in _held_requests(record):
        known = record.keys.can_name(name)
        yield name, set(meant(record.show(name), record.keys, ids, remaining=False) if known else ids)


def lost(record: Record) -> list[str]:
    """Return the holds of which nobody can tell any more what they protect: they keep every purge waiting."""
    names = [*(hold.id for hold in _of_samples(record)), *_held_requests(record)]
    return [name for name in names if not record.keys.can_name(name)]


def _of_samples(record: Record) -> list[StandingHold]:
    return [hold for hold in standing(record) if hold.placed.samples]


def _held_requests(record: Record) -> list[str]:
    return [row.request for row in record.ledger.rows(only_open=True) if row.held and row.samples]


def _named_by(record: Record, hold: StandingHold, ids: Collection[str]) -> set[str]:
    if key := record.key_if_there(hold.id):
        return set(Recognition(key, hold.placed.samples).among(ids))
    names = record.keys.names(hold.id)
    return set(ids) if names is None else {name for name in names if name in ids}


def catch(record: Record, writer: Writer, request: str, requester: str | None, ids: Collection[str]) -> None:
    """Hold a request that has just come, if standing holds are for it.

    Where a hold's key and its names are lost, nobody can tell whether it is: then it is held.
    """
    already = own_events(writer, request).holds
    for hold in standing(record, writer):
        placed = hold.placed
        by_name = placed.requester is not None
        touches = placed.requester == requester if by_name else bool(_named_by(record, hold, ids))
        if touches and hold.id not in already:
            _catch(writer, request, hold.id, placed)


def hold(writer: Writer, held: facts.Held, request: str) -> None:
    """Record a person's own hold of a request.

    Raises
    ------
    TransitionError
        If there is one already, or the request's state does not allow it.
    """
    if "" in own_events(writer, request).holds:
        raise TransitionError(request, "is on legal hold")
    writer.append(held, request)


def release(writer: Writer, released: facts.Released, request: str) -> None:
    """Record that a person's own hold of a request has ended; standing holds of it stay.

    Raises
    ------
    TransitionError
        If only standing holds hold it, or it is not held.
    """
    holds = own_events(writer, request).holds
    if holds and "" not in holds:
        names = ", ".join(holds)
        raise TransitionError(request, f"is held by {names}; lift that: expunge release {next(iter(holds))}")
    _release(writer, request, released)


def _release(writer: Writer, request: str, released: facts.Released) -> None:
    """Append the release, and say again which holds are still there."""
    writer.append(released, request)
    for left in own_events(writer, request).holds.values():
        writer.append(left, request)


def _catch(writer: Writer, request: str, hold: str, placed: facts.HoldPlaced) -> None:
    with suppress(TransitionError):  # its purge has begun: that cannot be held any more
        writer.append(facts.Held(by=placed.by, reason=placed.reason, standing=hold), request)


def _names_one_of(record: Record, writer: Writer, row: Row, ids: Sequence[str]) -> bool:
    known = record.recognition(writer, row.request) if row.samples else None
    return known is not None and bool(known.among(ids))
