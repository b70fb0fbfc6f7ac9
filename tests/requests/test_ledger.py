from __future__ import annotations

import hashlib
import json
import multiprocessing
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.chain import GENESIS, Anchor, Head, check_chain
from tasks.requests.ledger import Ledger
from tests.requests.conftest import Clock

SPAWN = multiprocessing.get_context("spawn")


AUDIT = facts.Audit(
    method="none",
    verdict="remembers",
    text="ä€\0\ud800",
    decision="next",
    why="it remembers",
    weights=facts.Weights(original="a", result="b"),
    figures={"half": 0.1},
    params={"none": None, "list": [1, None]},
)


def fill(ledger: Ledger, count: int = 3) -> None:
    for number in range(count):
        with ledger.writing() as writer:
            writer.append(facts.Received(channel="cli", requester=f"crm:{number}"), f"r{number}")


def change(url: str, statement: str) -> None:
    """Change events as someone does who may do everything with the database."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for verb in ("UPDATE", "DELETE"):
                connection.execute(text(f"DROP TRIGGER IF EXISTS expunge_no_{verb}"))
        else:
            connection.execute(text("ALTER TABLE expunge_events DISABLE TRIGGER ALL"))
        connection.execute(text(statement))


def test_events_come_back_as_they_were_appended(ledger: Ledger, clock: Clock) -> None:
    fill(ledger, 1)
    clock.forward(seconds=1.5)
    validated = facts.Validated(samples=({"id": "ab"},))
    with ledger.writing() as writer:
        appended = writer.append(validated, "r0")
        writer.append(AUDIT, "batch-1")
    first, second, third = ledger.events()
    assert second == appended
    assert (first.seq, first.at, first.kind, first.request) == (
        1,
        "2026-05-01T12:00:00.000000Z",
        "received",
        "r0",
    )
    assert first.raw == {"channel": "cli", "requester": "crm:0"}
    assert first.fact == facts.Received(channel="cli", requester="crm:0")
    assert second.at == "2026-05-01T12:00:01.500000Z"
    assert (second.raw, second.fact) == ({"samples": [{"id": "ab"}]}, validated)
    assert third.raw == {
        "method": "none", "verdict": "remembers", "text": "ä€\0\ud800", "decision": "next",
        "why": "it remembers", "weights": {"original": "a", "result": "b"}, "figures": {"half": 0.1},
        "params": {"none": None, "list": [1, None]},
    }  # fmt: skip
    assert third.fact == AUDIT
    assert [event.kind for event in ledger.events("r0")] == ["received", "validated"]
    assert ledger.events("r1") == []
    assert ledger.events(kinds=("validated", "batch-audited")) == [second, third]
    assert ledger.after(1) == [second, third]
    assert ledger.last(("received", "validated")) == second
    assert ledger.last(("closed",)) is None
    assert ledger.genesis() == first.hash


def test_the_hash_is_that_of_the_documented_content(ledger: Ledger) -> None:
    fill(ledger, 2)
    with ledger.writing() as writer:
        writer.append(AUDIT, "batch-1")
    previous = GENESIS
    for event in ledger.events():
        content = [event.seq, event.at, event.kind, event.request, event.raw, previous]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert event.previous == previous
        assert event.hash == hashlib.sha256(canonical.encode("ascii")).hexdigest()
        previous = event.hash
    assert ledger.head() == Head(3, previous)


def test_an_empty_ledger_has_no_events_and_reading_makes_nothing(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    assert ledger.events() == []
    assert ledger.head() == Head(0, GENESIS)
    assert ledger.rows() == []
    assert ledger.genesis() is None
    assert check_chain([]) == Head()
    assert list(tmp_path.iterdir()) == []


def test_all_of_a_transaction_is_kept_or_nothing(ledger: Ledger) -> None:
    fill(ledger, 1)
    before = ledger.events()

    def half() -> None:
        with ledger.writing() as writer:
            writer.append(facts.Validated(), "r0")
            assert [event.kind for event in writer.events("r0")] == ["received", "validated"]
            raise RuntimeError("between")

    with pytest.raises(RuntimeError, match="between"):
        half()
    assert ledger.events() == before
    with ledger.writing() as writer:
        writer.append(facts.Validated(), "r0")
        writer.append(facts.Batched(batch="b"), "r0")
    check_chain(ledger.events())
    assert len(ledger.events()) == 3


def test_a_killed_writer_leaves_nothing(url: str, ledger: Ledger) -> None:
    fill(ledger, 1)
    program = (
        "import os, signal, sys\n"
        "from tasks.requests.events import Validated\n"
        "from tasks.requests.ledger import Ledger\n"
        "with Ledger(sys.argv[1]).writing() as writer:\n"
        "    writer.append(Validated(), 'r0')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, url], check=False)
    assert done.returncode == -9
    with ledger.writing() as writer:
        writer.append(facts.Validated(), "r0")
    assert check_chain(ledger.events()).seq == 2


def test_what_the_state_does_not_allow_is_not_appended(ledger: Ledger) -> None:
    fill(ledger, 1)

    def append(request: str | None, *told: facts.Fact) -> None:
        with ledger.writing() as writer:
            for fact in told:
                writer.append(fact, request)

    with pytest.raises(ExpungeError, match=r"^request r0 is validated; 'closed'"):
        append("r0", facts.Validated(), facts.Closed())
    unknown = r"^request 'r9' is not in the ledger; expunge list shows those that are$"
    with pytest.raises(ExpungeError, match=unknown):
        append("r9", facts.Validated())
    with pytest.raises(ValueError, match="validated is about a request"):
        append(None, facts.Validated())
    assert len(ledger.events()) == 1
    assert [(row.request, row.status) for row in ledger.rows()] == [("r0", "received")]


def _append(url: str, name: str, count: int) -> None:
    ledger = Ledger(url)
    for number in range(count):
        with ledger.writing() as writer:
            writer.append(facts.Received(), f"{name}-{number}")


def test_many_writers_make_one_chain_and_lose_nothing(url: str, ledger: Ledger) -> None:
    writers = [SPAWN.Process(target=_append, args=(url, f"w{number}", 15)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    events = ledger.events()
    assert check_chain(events).seq == 60
    assert ledger.standing_differs() == []
    assert {event.request for event in events} == {f"w{w}-{n}" for w in range(4) for n in range(15)}


def test_the_database_refuses_changes(url: str, ledger: Ledger) -> None:
    fill(ledger)
    engine = create_engine(url, poolclass=NullPool)
    statements = ["UPDATE expunge_events SET body = '{}'", "DELETE FROM expunge_events"]
    if engine.dialect.name == "postgresql":
        statements.append("TRUNCATE expunge_events")
    for statement in statements:
        with pytest.raises(DBAPIError, match="events are never changed"), engine.begin() as connection:
            connection.execute(text(statement))
    assert check_chain(ledger.events()).seq == 3


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE expunge_events SET body = '{}' WHERE seq = 2", "event 2 was changed"),
        (
            "UPDATE expunge_events SET body = 'x' WHERE seq = 2",
            "event 2 was changed: its content has another hash",
        ),
        ("UPDATE expunge_events SET at = '2020' WHERE seq = 3", "event 3 was changed"),
        ("UPDATE expunge_events SET request = 'r7' WHERE seq = 1", "event 1 was changed"),
        ("UPDATE expunge_events SET request = NULL WHERE seq = 1", "event 1 was changed"),
        ("DELETE FROM expunge_events WHERE seq = 1", "event 1 is missing; event 2 follows 0"),
        ("DELETE FROM expunge_events WHERE seq = 2", "event 2 is missing; event 3 follows 1"),
        ("UPDATE expunge_events SET seq = 9 WHERE seq = 3", "event 3 is missing"),
    ],
)
def test_every_change_is_noticed(url: str, ledger: Ledger, statement: str, message: str) -> None:
    fill(ledger)
    change(url, statement)
    with pytest.raises(ExpungeError, match=message):
        check_chain(ledger.events())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x", "event 2 was changed: its body is no JSON object"),
        ("[]", "event 2 was changed: its body is no JSON object"),
        ('{"first": 7}', "event 2 is no 'behind': first is wrong"),
        ("{}", "event 2 is no 'behind': first is wrong"),
    ],
)
def test_what_an_event_cannot_tell_is_one_line_when_it_is_read(
    url: str, ledger: Ledger, body: str, message: str
) -> None:
    fill(ledger)
    change(url, f"UPDATE expunge_events SET body = '{body}', kind = 'behind' WHERE seq = 2")
    with pytest.raises(ExpungeError, match=message) as caught:
        assert ledger.events()[1].fact
    assert "\n" not in str(caught.value)


def test_a_ledger_that_was_rewritten_with_care_is_noticed_by_its_anchors(
    tmp_path: Path, clock: Clock
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/a.db", clock)
    fill(ledger)
    anchor = ledger.head()
    forged = Ledger(f"sqlite:///{tmp_path}/b.db", clock)
    for event in ledger.events():
        with forged.writing() as writer:
            writer.append(facts.Received(channel="cli", requester="crm:7"), event.request)
    assert check_chain(forged.events()).seq == 3
    with pytest.raises(ExpungeError, match="event 3 is not the one that was anchored"):
        check_chain(forged.events(), [Anchor(anchor, "commit 1a2b3c4")])
    others = [Anchor(Head(), "--anchor"), Anchor(Head(1, ledger.events()[0].hash), "the mark")]
    assert check_chain(ledger.events(), [Anchor(anchor, "commit 1a2b3c4"), *others]) == anchor


def test_a_ledger_that_lost_its_end_is_noticed_by_its_anchors(url: str, ledger: Ledger) -> None:
    fill(ledger)
    anchor = ledger.head()
    change(url, "DELETE FROM expunge_events WHERE seq = 3")
    assert check_chain(ledger.events()).seq == 2
    with pytest.raises(
        ExpungeError, match=r"event 3 was anchored \(commit 1a2b3c4\), but the ledger ends at 2"
    ):
        check_chain(ledger.events(), [Anchor(anchor, "commit 1a2b3c4")])


def test_an_anchor_reads_back() -> None:
    head = Head(12, "ab" * 32)
    assert Head.parse(str(head)) == head
    for bad in (
        "",
        "12",
        "12:ab",
        f"-1:{'ab' * 32}",
        f"1_0:{'ab' * 32}",
        f"٣:{'ab' * 32}",
        f"12:{'AB' * 32}",
    ):
        with pytest.raises(ExpungeError, match="is no anchor"):
            Head.parse(bad)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "the ledger's URL is not one"),
        ("nosuch://host/name", "the ledger's URL is not one|use sqlite"),
        ("mysql://host/name", "ledger mysql://host/name: use sqlite"),
        (
            "postgresql+psycopg://u:secret@127.0.0.1:1/x",
            r"ledger postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/x: ",
        ),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line_without_the_password(url: str, message: str) -> None:
    with pytest.raises(ExpungeError, match=message) as caught:
        Ledger(url).events()
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ExpungeError, match="file is not a database"):
        Ledger(f"sqlite:///{tmp_path}/ledger.db").events()


def test_a_reader_is_not_kept_waiting_by_a_writer(tmp_path: Path, clock: Clock) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", clock)
    fill(ledger, 1)
    with ledger.writing() as writer:
        writer.append(facts.Validated(), "r0")
        assert len(ledger.events()) == 1
    assert len(ledger.events()) == 2


def test_the_file_is_plain_sqlite(tmp_path: Path, clock: Clock) -> None:
    fill(Ledger(f"sqlite:///{tmp_path}/ledger.db", clock))
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        rows = connection.execute("SELECT seq, kind, request FROM expunge_events ORDER BY seq").fetchall()
    assert rows == [(1, "received", "r0"), (2, "received", "r1"), (3, "received", "r2")]
