"""The ledger: events that are appended and never changed, in a database.

The store is any database that SQLAlchemy reaches; SQLite and PostgreSQL are supported. One process at a
time writes: SQLite's ``BEGIN IMMEDIATE``, PostgreSQL's advisory lock. A transaction is kept as a whole or
not at all. Triggers refuse ``UPDATE`` and ``DELETE``: they stop mistakes, the chain shows intent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from tasks.core.errors import ExpungeError
from tasks.requests import database, standing
from tasks.requests.chain import Event, Head, canonical, now, stamp
from tasks.requests.database import EVENTS
from tasks.requests.events import TRANSITIONS, Fact
from tasks.requests.standing import Row
from tasks.requests.states import State, history

__all__ = ["EVENTS", "SKEW", "Clock", "Ledger", "Writer"]

Clock = Callable[[], datetime]

PAGE = 1000
"""How many events are read at a time."""

SKEW = timedelta(minutes=5)
"""How far clocks may differ."""


@dataclass
class Writer:
    """Appends within one transaction; what was appended is seen by its own reads."""

    _connection: Connection
    at: str
    head: Head

    def append(self, fact: Fact, subject: str | None = None) -> Event:
        """Append an event about a request, a batch, a standing hold, or none of these.

        Raises
        ------
        TransitionError
            If the request's state does not allow it.
        """
        about_request = fact.kind in TRANSITIONS
        if about_request and subject is None:
            raise ValueError(f"{fact.kind} is about a request")
        state = (
            self.state(subject).follow(fact.kind, TRANSITIONS, subject) if about_request and subject else None
        )
        body = canonical(fact.body())
        new = Event(self.head.seq + 1, self.at, fact.kind, subject, body, self.head.hash).sealed()
        self._connection.execute(
            insert(EVENTS).values(
                seq=new.seq, at=new.at, kind=new.kind, request=new.request,
                body=new.text, previous=new.previous, hash=new.hash,
            )
        )  # fmt: skip
        self.head = Head(new.seq, new.hash)
        if state is not None:
            standing.write(self._connection, new, state)
        return new

    def events(self, subject: str | None = None, kinds: Sequence[str] = ()) -> list[Event]:
        """All events so far, or those of one subject, or of some kinds."""
        return _read(self._connection, subject, kinds)

    def state(self, request: str) -> State:
        """Where the request stands."""
        query = select(EVENTS.c.kind).where(EVENTS.c.request == request).order_by(EVENTS.c.seq)
        return history(self._connection.execute(query).scalars(), TRANSITIONS)

    def rows(self, **filters: Any) -> list[Row]:
        """Where requests stand; the filters are those of :func:`tasks.requests.standing.rows`."""
        return list(standing.rows(self._connection, **filters))

    def rebuild_standing(self) -> None:
        """Make the table beside the events anew."""
        standing.rebuild(self._connection, _stream(self._connection), self.head)


class Ledger:
    """The events in a database.

    Parameters
    ----------
    url
        SQLAlchemy's, e.g. ``sqlite:///data/requests/ledger.db`` or
        ``postgresql+psycopg://user@host/name``.
    clock
        Tells the time; tests inject theirs.

    Raises
    ------
    ExpungeError
        If the URL is not set, or names a database that is not supported, or whose driver is not installed.
    """

    def __init__(self, url: str, clock: Clock = now) -> None:
        self._clock = clock
        try:
            parsed = make_url(url)
            self.name = parsed.render_as_string(hide_password=True)
            if parsed.get_backend_name() not in database.TRIGGERS:
                raise ExpungeError(f"ledger {self.name}: use sqlite:/// or postgresql+psycopg://")
            self._file = database.file_of(parsed)
            self._engine = database.engine_of(parsed)
        except (ArgumentError, NoSuchModuleError):
            raise ExpungeError(
                "the ledger's URL is not one; use sqlite:///<file> or postgresql+psycopg://..."
            ) from None
        except ModuleNotFoundError as error:
            raise ExpungeError(
                f"ledger {self.name}: the driver is missing: pip install {error.name}"
            ) from None

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Hold the writer's lock; keep all that the body appends, or, if it raises, nothing.

        Raises
        ------
        ExpungeError
            If the database cannot be reached, or another writer holds the lock for over a minute.
        """
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(), self._engine.connect() as connection, connection.begin():
            database.lock(connection)
            database.create(connection)
            head, last = _head(connection), _last_at(connection)
            self._bring_up_to_date(connection, head)
            at = stamp(self._clock())
            if at < last and stamp(self._clock() + SKEW) < last:
                raise ExpungeError(
                    f"this machine's clock says {at[:19]}Z, and the ledger's last event is of {last[:19]}Z; "
                    "set the clock"
                )
            writer = Writer(connection, max(at, last), head)
            yield writer
            standing.settle(connection, writer.head)

    def events(self, subject: str | None = None, kinds: Sequence[str] = ()) -> list[Event]:
        """All events, or those of one request or batch, or of some kinds; oldest first."""
        with self._reading() as connection:
            return _read(connection, subject, kinds) if connection else []

    @contextmanager
    def streaming(self) -> Iterator[Iterator[Event]]:
        """All events, oldest first, one after another: a long ledger need not fit into memory."""
        with self._reading() as connection:
            yield _stream(connection) if connection else iter(())

    def passes(self, head: Head) -> bool:
        """Whether the chain passes through what once was its end."""
        with self._reading() as connection:
            if connection is None:
                return head == Head()
            found = connection.execute(select(EVENTS.c.hash).where(EVENTS.c.seq == head.seq)).scalar()
            return found == head.hash or head == Head()

    def after(self, seq: int) -> list[Event]:
        """Events that follow a number."""
        with self._reading() as connection:
            return _read(connection, after=seq) if connection else []

    def last(self, kinds: Sequence[str]) -> Event | None:
        """Return the last event of some kinds."""
        with self._reading() as connection:
            found = _read(connection, kinds=kinds, newest=1) if connection else []
        return found[0] if found else None

    def rows(self, **filters: Any) -> list[Row]:
        """Where requests stand; the filters are those of :func:`tasks.requests.standing.rows`."""
        with self._reading() as connection:
            if connection is None:
                return []
            if standing.upto(connection) == _head(connection):
                return list(standing.rows(connection, **filters))
        with self.writing() as writer:  # a version of before wrote to it, or the table was dropped
            return writer.rows(**filters)

    def standing_differs(self) -> list[str]:
        """Return the requests whose row in the table beside the events is not what their events tell."""
        self.rows(request="")
        with self._reading() as connection:
            return standing.differences(connection, _stream(connection)) if connection else []

    def rebuild_standing(self) -> None:
        """Make the table beside the events anew."""
        with self.writing() as writer:
            writer.rebuild_standing()

    @staticmethod
    def _bring_up_to_date(connection: Connection, head: Head) -> None:
        standing.create(connection)
        if standing.upto(connection) != head:
            standing.rebuild(connection, _stream(connection), head)

    def genesis(self) -> str | None:
        """Return the hash of the first event, by which ledgers are told apart; ``None`` before it."""
        with self._reading() as connection:
            query = select(EVENTS.c.hash).where(EVENTS.c.seq == 1)
            return connection.execute(query).scalar() if connection else None

    def head(self) -> Head:
        """Return the end of the chain, to be anchored outside."""
        with self._reading() as connection:
            return _head(connection) if connection else Head()

    @contextmanager
    def _reading(self) -> Iterator[Connection | None]:
        """Connect; ``None`` if nothing was ever written, and nothing is made then."""
        if self._file and not self._file.exists():
            yield None
            return
        with self._errors(), self._engine.connect() as connection:
            yield connection if inspect(connection).has_table(EVENTS.name) else None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0] if error.orig else "no connection"
            raise ExpungeError(f"ledger {self.name}: {reason}") from error


def _head(connection: Connection) -> Head:
    last = connection.execute(
        select(EVENTS.c.seq, EVENTS.c.hash).order_by(EVENTS.c.seq.desc()).limit(1)
    ).first()
    return Head(*last) if last else Head()


def _last_at(connection: Connection) -> str:
    return connection.execute(select(EVENTS.c.at).order_by(EVENTS.c.seq.desc()).limit(1)).scalar() or ""


def _read(
    connection: Connection,
    subject: str | None = None,
    kinds: Sequence[str] = (),
    after: int = 0,
    newest: int | None = None,
) -> list[Event]:
    order = EVENTS.c.seq.desc() if newest else EVENTS.c.seq
    query = select(EVENTS).order_by(order).limit(newest)
    if subject is not None:
        query = query.where(EVENTS.c.request == subject)
    if kinds:
        query = query.where(EVENTS.c.kind.in_(kinds))
    if after:
        query = query.where(EVENTS.c.seq > after)
    return [Event(*row) for row in connection.execute(query)]


def _stream(connection: Connection) -> Iterator[Event]:
    query = select(EVENTS).order_by(EVENTS.c.seq).execution_options(yield_per=PAGE)
    for row in connection.execute(query):
        yield Event(*row)
