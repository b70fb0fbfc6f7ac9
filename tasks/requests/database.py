"""The table of events in a database: SQLite or PostgreSQL, its triggers, and the lock of its writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.pool import NullPool

from tasks.requests import standing
from tasks.requests.standing import BIG

WAIT = 60
"""Seconds to wait for another writer."""

LOCK = 0x6578_7075_6E67_6531
"""PostgreSQL's number of the writer's lock: ``expunge1`` in ASCII."""

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

BY_KIND = Index("expunge_events_kind", EVENTS.c.kind, EVENTS.c.seq)
"""Finds the few events of a kind among very many; the first release had no such index."""

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


def file_of(parsed: URL) -> Path | None:
    """Where an SQLite database lies."""
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def engine_of(parsed: URL) -> Engine:
    """Return the engine, with what makes a transaction begin when it should and last once it is kept."""
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


def lock(connection: Connection) -> None:
    """Wait for the writer's lock, which the end of the transaction gives back."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": LOCK})
    else:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def create(connection: Connection) -> None:
    """Make the table, its triggers and its index if they are not there."""
    if not inspect(connection).has_table(EVENTS.name):
        EVENTS.create(connection)
        for statement in TRIGGERS[connection.dialect.name]:
            connection.execute(text(statement))
    elif standing.upto(connection) is None:
        BY_KIND.create(connection, checkfirst=True)
