"""The ledger: events that are appended and never changed, each sealed to the one before it.

An event holds the SHA-256 of its own content and of its predecessor's, so whoever changes, removes or
inserts one must rewrite all that follow, and then the head no longer is the one that was anchored
outside (in Git commits, MLflow tags, certificates).

The store is any database that SQLAlchemy reaches; SQLite and PostgreSQL are supported. One process at a
time writes: SQLite's ``BEGIN IMMEDIATE``, PostgreSQL's advisory lock. A transaction is kept as a whole or
not at all. Triggers refuse ``UPDATE`` and ``DELETE``: they stop mistakes, the chain shows intent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from tasks.core.errors import ExpungeError
from tasks.requests.states import TRANSITIONS, State, state_of

Clock = Callable[[], datetime]

GENESIS = "0" * 64
"""What stands for the predecessor of the first event."""

WAIT = 60
"""Seconds to wait for another writer."""

LOCK = 0x6578_7075_6E67_6531
"""PostgreSQL's number of the writer's lock: ``expunge1`` in ASCII."""

BIG = BigInteger().with_variant(Integer, "sqlite")

EVENTS = Table(
    "expunge_events",
    MetaData(),
    Column("seq", BIG, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("request", String(64), index=True),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
)

TRIGGERS = {
    "sqlite": [
        f"CREATE TRIGGER expunge_no_{verb} BEFORE {verb} ON expunge_events "
        "BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        """CREATE OR REPLACE FUNCTION expunge_refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'events are never changed'; END $$""",
        """CREATE TRIGGER expunge_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON expunge_events
           FOR EACH STATEMENT EXECUTE FUNCTION expunge_refuse()""",
    ],
}


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """``2026-05-01T12:00:00.000000Z``: UTC, fixed width, so that text sorts as time."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value: object) -> str:
    """JSON in the one form that is hashed: keys sorted, no blanks, no NaN, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def latest(events: Sequence[Event], kind: str) -> Event | None:
    """Return the last of the events of a kind; ``events`` are in their order."""
    return next((event for event in reversed(events) if event.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the ledger.

    Attributes
    ----------
    seq
        1, 2, 3, ... without a gap.
    at
        When, by the writer's clock: :func:`stamp`.
    kind
        A key of :data:`tasks.requests.states.TRANSITIONS`, or, without a request, any name.
    request
        The request that it is about, if any.
    body
        What there is to tell; JSON values.
    previous, hash
        Digests of the event before it and of this one: SHA-256 of the canonical JSON of all other fields.
    """

    seq: int
    at: str
    kind: str
    request: str | None
    body: Mapping[str, Any]
    previous: str
    hash: str = ""

    def sealed(self) -> Event:
        """Return the event with the hash that its content has."""
        return Event(self.seq, self.at, self.kind, self.request, self.body, self.previous, self.digest())

    def digest(self) -> str:
        """SHA-256 over everything but the hash itself."""
        content = [self.seq, self.at, self.kind, self.request, self.body, self.previous]
        return hashlib.sha256(canonical(content).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """All fields, for ``--json`` and certificates."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Head:
    """The last event's number and hash; number 0 and :data:`GENESIS` before the first."""

    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, anchor: str) -> Head:
        """Read ``<seq>:<hash>`` as it stands in a commit trailer or a tag."""
        seq, _, digest = anchor.partition(":")
        if not (
            seq.isascii() and seq.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        ):
            raise ExpungeError(f"{anchor!r} is no anchor; one looks like 12:<64 hex digits>")
        return cls(int(seq), digest)


@dataclass
class Writer:
    """Appends within one transaction; what was appended is seen by its own reads."""

    _connection: Connection
    _at: str
    _head: Head

    def append(self, kind: str, request: str | None = None, **body: Any) -> Event:
        """Append an event.

        Raises
        ------
        ExpungeError
            If the request's state does not allow it.
        """
        if request is not None:
            try:
                self.state(request).after(kind)
            except ExpungeError as error:
                raise ExpungeError(f"request {request} {error}") from None
        elif kind in TRANSITIONS:
            raise ValueError(f"{kind} is about a request")
        new = Event(self._head.seq + 1, self._at, kind, request, body, self._head.hash).sealed()
        self._connection.execute(
            insert(EVENTS).values(
                seq=new.seq, at=new.at, kind=new.kind, request=new.request,
                body=canonical(new.body), previous=new.previous, hash=new.hash,
            )
        )  # fmt: skip
        self._head = Head(new.seq, new.hash)
        return new

    def events(self, request: str | None = None) -> list[Event]:
        """All events so far, or those of one request."""
        return _read(self._connection, request)

    def state(self, request: str) -> State:
        """Where the request stands."""
        return state_of(event.kind for event in self.events(request))


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
        If the URL is none, or names a database that is not supported, or whose driver is not installed.
    """

    def __init__(self, url: str, clock: Clock = now) -> None:
        self._clock = clock
        try:
            parsed = make_url(url)
            self.name = parsed.render_as_string(hide_password=True)
            if parsed.get_backend_name() not in TRIGGERS:
                raise ExpungeError(f"ledger {self.name}: use sqlite:/// or postgresql+psycopg://")
            self._file = _file(parsed)
            self._engine = _engine(parsed)
        except (ArgumentError, NoSuchModuleError):
            raise ExpungeError(
                "the ledger's URL is none; use sqlite:///<file> or postgresql+psycopg://..."
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
            _lock(connection)
            _create(connection)
            yield Writer(connection, stamp(self._clock()), _head(connection))

    def events(self, request: str | None = None) -> list[Event]:
        """All events, or those of one request; oldest first."""
        with self._reading() as connection:
            return _read(connection, request) if connection else []

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


def check_chain(events: Iterable[Event], anchors: Iterable[Head] = ()) -> Head:
    """Prove that events form an unbroken chain on which every anchor lies; return its head.

    Raises
    ------
    ExpungeError
        Naming the first event that is wrong, or the anchor that the chain does not pass through.
    """
    head = Head()
    wanted = {anchor.seq: anchor.hash for anchor in anchors}
    for entry in events:
        if entry.seq != head.seq + 1:
            raise ExpungeError(
                f"ledger: event {head.seq + 1} is missing; event {entry.seq} follows {head.seq}"
            )
        if entry.previous != head.hash:
            raise ExpungeError(
                f"ledger: event {entry.seq} was not written after event {head.seq} as it is now"
            )
        if entry.hash != entry.digest():
            raise ExpungeError(f"ledger: event {entry.seq} was changed: its content has another hash")
        head = Head(entry.seq, entry.hash)
        if wanted.pop(head.seq, head.hash) != head.hash:
            raise ExpungeError(f"ledger: event {head.seq} is not the one that was anchored; it was rewritten")
    if lost := sorted(seq for seq in wanted if seq > 0):
        raise ExpungeError(f"ledger: event {lost[0]} was anchored, but the ledger ends at {head.seq}")
    return head


def _file(parsed: URL) -> Path | None:
    """Where an SQLite database lies."""
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _engine(parsed: URL) -> Engine:
    if parsed.get_backend_name() == "postgresql":
        # a parallel writer's events are visible once it has committed, so no stale snapshot
        options = {"connect_timeout": "10", "options": f"-c lock_timeout={WAIT}s"}
        return create_engine(
            parsed, poolclass=NullPool, isolation_level="READ COMMITTED", connect_args=options
        )
    engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": WAIT})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # or sqlite3 would begin transactions of its own, too late
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
    else:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create(connection: Connection) -> None:
    """Make the table and its triggers if they are not there."""
    if not inspect(connection).has_table(EVENTS.name):
        EVENTS.create(connection)
        for statement in TRIGGERS[connection.dialect.name]:
            connection.execute(text(statement))


def _head(connection: Connection) -> Head:
    last = connection.execute(
        select(EVENTS.c.seq, EVENTS.c.hash).order_by(EVENTS.c.seq.desc()).limit(1)
    ).first()
    return Head(*last) if last else Head()


def _read(connection: Connection, request: str | None) -> list[Event]:
    query = select(EVENTS).order_by(EVENTS.c.seq)
    if request is not None:
        query = query.where(EVENTS.c.request == request)
    found = []
    for row in connection.execute(query).mappings():
        try:
            body = json.loads(row["body"])
        except ValueError:
            raise ExpungeError(f"ledger: event {row['seq']} was changed: its body is no JSON") from None
        found.append(Event(**{**row, "body": body}))
    return found
