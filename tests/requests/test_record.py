from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import Anchor, Head
from tasks.requests.desk import Desk
from tasks.requests.ledger import Ledger
from tests.requests.conftest import Clock, submit

LEDGER = Path("data/requests/ledger.db")


def mark(desk: Desk) -> Path:
    (path,) = desk.keys.folder.glob("ledger-*.mark")
    return path


def cut(seq: int) -> None:
    """Take the end off a ledger, as someone does who may do everything with its file."""
    with closing(sqlite3.connect(LEDGER)) as connection:
        connection.execute("DROP TRIGGER expunge_no_DELETE")
        connection.execute("DELETE FROM expunge_events WHERE seq > ?", (seq,))
        connection.commit()


def test_every_write_marks_the_head_beside_the_keys(desk: Desk, catalogue: Catalogue) -> None:
    assert desk.marks() == []
    assert desk.check() == Head()
    request = submit(desk, catalogue)
    path = mark(desk)
    assert desk.marks() == [Anchor(desk.ledger.head(), f"the mark {path}")]
    assert path.stat().st_mode & 0o777 == 0o600
    desk.decide(facts.Approved(by="dpo"), request.id)
    desk.record(facts.Settled(by="me", checkout="c"))
    assert [anchor.head for anchor in desk.marks()] == [desk.check()] == [desk.ledger.head()]


def test_an_end_that_was_cut_off_is_noticed_by_the_mark(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue)
    desk.decide(facts.Approved(by="dpo"), request.id)
    cut(2)
    with pytest.raises(ExpungeError, match=r"event 3 was anchored \(the mark .*\), but the ledger ends at 2"):
        desk.check()


@pytest.mark.parametrize("count", [1, 3])
def test_what_is_written_after_the_end_was_cut_off_does_not_hide_that(
    desk: Desk, catalogue: Catalogue, count: int
) -> None:
    request = submit(desk, catalogue)
    desk.decide(facts.Approved(by="dpo"), request.id)
    desk.decide(facts.Held(by="dpo", reason="court"), request.id)
    before = mark(desk).read_bytes()
    cut(2)
    for number in range(count):  # intake goes on: nobody's request is lost because of it
        submit(desk, catalogue, samples={"index": [5 + number]})
    assert mark(desk).read_bytes() == before
    with pytest.raises(ExpungeError, match=r"event 4 (was|is not the one that was) anchored \(the mark"):
        desk.check()


def test_an_older_copy_of_the_ledger_is_noticed_and_the_right_one_goes_on(
    desk: Desk, catalogue: Catalogue
) -> None:
    request = submit(desk, catalogue)
    shutil.copy(LEDGER, "older.db")
    desk.decide(facts.Approved(by="dpo"), request.id)
    shutil.copy(LEDGER, "right.db")
    shutil.copy("older.db", LEDGER)
    with pytest.raises(ExpungeError, match="restore the ledger from its backup"):
        desk.check()
    desk.decide(facts.Held(by="dpo", reason="court"), request.id)
    with pytest.raises(ExpungeError, match="event 3 is not the one that was anchored"):
        desk.check()
    shutil.copy("right.db", LEDGER)
    assert desk.check().seq == 3
    desk.decide(facts.Held(by="dpo", reason="court"), request.id)
    assert desk.check().seq == 4
    assert [anchor.head.seq for anchor in desk.marks()] == [4]


@pytest.mark.parametrize("text", ["", "3", "3:abc", "\xff\xfe"])
def test_a_damaged_mark_is_said_and_stays_damaged(desk: Desk, catalogue: Catalogue, text: str) -> None:
    submit(desk, catalogue)
    mark(desk).write_bytes(text.encode("latin-1"))
    with pytest.raises(ExpungeError, match=r"\.mark is damaged; restore it from the backup of the keys"):
        desk.check()
    submit(desk, catalogue, samples={"index": [5]})
    assert mark(desk).read_bytes() == text.encode("latin-1")


def test_two_ledgers_beside_one_folder_of_keys_have_a_mark_each(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    submit(desk, catalogue)
    clock.forward(seconds=1)
    other = Desk(Ledger("sqlite:///other.db", clock), desk.keys, desk.settings, clock)
    submit(other, catalogue)
    submit(other, catalogue, samples={"index": [1]})
    assert len(list(desk.keys.folder.glob("ledger-*.mark"))) == 2
    assert (desk.check().seq, other.check().seq) == (2, 4)
    assert desk.marks() != other.marks()


def test_the_mark_is_held_against_what_others_have_anchored(desk: Desk, catalogue: Catalogue) -> None:
    submit(desk, catalogue)
    forged = Anchor(Head(2, "a" * 64), "commit 1a2b3c4")
    with pytest.raises(ExpungeError, match=r"contradict each other: the mark .* and commit 1a2b3c4"):
        desk.check([forged])


def test_a_writer_that_was_killed_before_the_mark_leaves_an_older_one_that_holds(
    desk: Desk, catalogue: Catalogue
) -> None:
    request = submit(desk, catalogue)
    with desk.ledger.writing() as writer:
        writer.append(facts.Approved(by="dpo"), request.id)
    assert [anchor.head.seq for anchor in desk.marks()] == [2]
    assert desk.check().seq == 3
    desk.decide(facts.Held(by="dpo", reason="court"), request.id)
    assert [anchor.head.seq for anchor in desk.marks()] == [4]


def test_a_clock_that_is_a_little_behind_gives_no_earlier_time(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    first = submit(desk, catalogue)
    clock.forward(minutes=-4)
    second = submit(desk, catalogue, samples={"index": [1]})
    assert second.events[0].at == first.events[-1].at


def test_a_clock_that_was_set_back_is_refused(desk: Desk, catalogue: Catalogue, clock: Clock) -> None:
    submit(desk, catalogue)
    clock.forward(minutes=-6)
    with pytest.raises(ExpungeError) as caught:
        submit(desk, catalogue, samples={"index": [1]}, received_at="2026-05-01T09:00:00Z")
    assert str(caught.value) == (
        "this machine's clock says 2026-05-01T11:54:00Z, and the ledger's last event is of "
        "2026-05-01T12:00:00Z; set the clock"
    )
    assert len(desk.ledger.events()) == 2
    assert len(list(desk.keys.folder.glob("*.key"))) == 1
    clock.forward(minutes=6)
    assert str(submit(desk, catalogue, samples={"index": [1]}).state.status) == "validated"


def test_a_batch_or_a_hold_is_no_request(desk: Desk, catalogue: Catalogue) -> None:
    hold = desk.place_hold(by="dpo", reason="court", requester="crm:1")
    desk.record(facts.Opened(requests=1, samples=1), "batch-20260501-00000000")
    desk.record(facts.Settled(by="me", checkout="c"))
    request = submit(desk, catalogue)
    for name in (hold, "batch-20260501-00000000", "", "20260501-ffffffff"):
        with pytest.raises(ExpungeError, match="is not in the ledger; expunge list shows those that are"):
            desk.show(name)
    assert desk.requests() == desk.requests(only_open=True) == [request]
    assert [row.request for row in desk.rows()] == [request.id]
