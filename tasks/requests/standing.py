"""A table beside the events for reading: where each request stands, and when it is due.

It is derived: every row follows from the events of its request, and is written with them in one transaction.
It can be dropped at any time; the next write makes it again. Nothing is decided by it alone: whether an event
may happen is told by the events (:mod:`tasks.requests.states`). :func:`differences` holds it against them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    update,
)

from tasks.requests import events as facts
from tasks.requests.chain import Event, Head
from tasks.requests.events import TRANSITIONS
from tasks.requests.states import ENDED, State, Status

BIG = BigInteger().with_variant(Integer, "sqlite")

_METADATA = MetaData()

STANDING = Table(
    "expunge_standing",
    _METADATA,
    Column("request", String(64), primary_key=True),
    Column("seq", BIG, nullable=False),
    Column("status", String(16), nullable=False),
    Column("before", String(16)),
    Column("held", Boolean, nullable=False),
    Column("open", Boolean, nullable=False, index=True),
    Column("received_at", String(32)),
    Column("due_at", String(32)),
    Column("requester", String(64), index=True),
    Column("ground", String(32)),
    Column("batch", String(64), index=True),
    Column("first", String(64), index=True),
    Column("samples", BIG),
    Column("shared", BIG),
)

UPTO = Table(
    "expunge_standing_upto",
    _METADATA,
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
)
"""The event up to which the table is right."""


_TELLING = frozenset(
    fact.kind
    for fact in (
        facts.Received, facts.Validated, facts.Extended, facts.Behind, facts.Duplicate, facts.Advanced,
        facts.Batched, facts.Unbatched,
    )
)  # fmt: skip
"""Kinds of events that tell more of a row than its status; the others need not be read for it."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where a request stands.

    ``seq``: number of its first event, so that of two requests received at the same time the one that came
    first is known. ``shared``: how many samples that show other people, too, a request for a person's takes.
    """

    request: str
    seq: int
    status: Status
    before: Status | None = None
    held: bool = False
    received_at: str | None = None
    due_at: str | None = None
    requester: str | None = None
    ground: str | None = None
    batch: str | None = None
    first: str | None = None
    samples: int | None = None
    shared: int | None = None

    @property
    def open(self) -> bool:
        """Whether anything is still to be done."""
        return self.status not in ENDED

    def standing(self, state: State) -> Row:
        """Return the row of a request that has come to a state."""
        return replace(self, status=state.status or self.status, before=state.before, held=state.held)

    def telling(self, event: Event) -> Row:
        """Return the row with what an event tells beside the state."""
        if event.kind not in _TELLING:
            return self
        match event.fact:
            case facts.Received(received_at=received, due_at=due, requester=requester, ground=ground):
                return replace(
                    self, received_at=received or event.at, due_at=due, requester=requester, ground=ground
                )
            case facts.Validated(samples=samples, asks=asks):
                return replace(self, samples=len(samples), shared=asks or None)
            case facts.Extended(due_at=due):
                return replace(self, due_at=due or self.due_at)
            case facts.Behind(first=first) | facts.Duplicate(first=first):
                return replace(self, first=first or None)
            case facts.Advanced():
                return replace(self, first=None)
            case facts.Batched(batch=batch):
                return replace(self, batch=batch)
            case facts.Unbatched():
                return replace(self, batch=None)
        return self


def follow(entries: Iterable[Event]) -> dict[str, Row]:
    """Derive the rows from events, oldest first."""
    rows: dict[str, Row] = {}
    states: dict[str, State] = {}
    led: dict[tuple[State, str], State] = {}  # most requests go the same way
    for event in entries:
        kind, name = event.kind, event.request
        if name is None or kind not in TRANSITIONS:
            continue
        before = states.get(name, State())
        state = led.get((before, kind))
        if state is None:
            state = led[before, kind] = before.after(kind, TRANSITIONS)
        states[name] = state
        row = rows.get(name) or Row(name, event.seq, state.status or Status.RECEIVED)
        rows[name] = row.telling(event)
    return {name: row.standing(states[name]) for name, row in rows.items()}


def create(connection: Connection) -> None:
    """Make the table if it is not there, or is one of before."""
    if not _is_there(connection):
        _METADATA.drop_all(connection)
        _METADATA.create_all(connection)


def _is_there(connection: Connection) -> bool:
    """Whether the table is there with all of its columns."""
    found = inspect(connection)
    if not (found.has_table(UPTO.name) and found.has_table(STANDING.name)):
        return False
    return {column.name for column in STANDING.columns} <= {
        each["name"] for each in found.get_columns(STANDING.name)
    }


def upto(connection: Connection) -> Head | None:
    """Return the event up to which the table is right; ``None`` if there is no table."""
    if not _is_there(connection):
        return None
    row = connection.execute(select(UPTO.c.seq, UPTO.c.hash)).first()
    return Head(*row) if row else Head()


def rebuild(connection: Connection, entries: Iterable[Event], head: Head) -> None:
    """Write the table anew."""
    connection.execute(delete(STANDING))
    rows = [_values(row) for row in follow(entries).values()]
    if rows:
        connection.execute(insert(STANDING), rows)
    settle(connection, head)


def settle(connection: Connection, head: Head) -> None:
    """Note that the table is right up to an event."""
    connection.execute(delete(UPTO))
    connection.execute(insert(UPTO).values(seq=head.seq, hash=head.hash))


def write(connection: Connection, event: Event, state: State) -> None:
    """Bring the row of an event's request up to date."""
    name = event.request or ""
    before = next(iter(rows(connection, request=name)), None)
    row = before or Row(name, event.seq, state.status or Status.RECEIVED)
    row = row.telling(event).standing(state)
    if before is None:
        connection.execute(insert(STANDING).values(**_values(row)))
    else:
        connection.execute(update(STANDING).where(STANDING.c.request == name).values(**_values(row)))


def rows(
    connection: Connection,
    *,
    request: str | None = None,
    requester: str | None = None,
    batch: str | None = None,
    only_open: bool = False,
    only_behind: bool = False,
) -> Iterator[Row]:
    """Read rows, in the order in which the requests came."""
    query = select(*(STANDING.c[name] for name in Row.__slots__)).order_by(
        STANDING.c.received_at, STANDING.c.seq
    )
    for column, value in (
        (STANDING.c.request, request),
        (STANDING.c.requester, requester),
        (STANDING.c.batch, batch),
    ):
        if value is not None:
            query = query.where(column == value)
    if only_open:
        query = query.where(STANDING.c.open.is_(True))
    if only_behind:
        query = query.where(STANDING.c.status == str(Status.BEHIND))
    for name, seq, status, before, *others in connection.execute(query):
        yield Row(name, seq, Status(status), Status(before) if before else None, *others)


def differences(connection: Connection, entries: Iterable[Event]) -> list[str]:
    """Return the requests whose row is not what their events tell."""
    derived = follow(entries)
    there = {row.request: row for row in rows(connection)}
    return sorted(name for name in derived.keys() | there.keys() if derived.get(name) != there.get(name))


def _values(row: Row) -> dict[str, object]:
    values = {name: getattr(row, name) for name in Row.__slots__}
    return values | {"status": str(row.status), "before": row.before and str(row.before), "open": row.open}
