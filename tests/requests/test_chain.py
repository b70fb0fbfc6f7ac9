from __future__ import annotations

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests.chain import GENESIS, Anchor, Event, Head, canonical, check_chain

A, B = "a" * 64, "b" * 64


def chain(count: int) -> list[Event]:
    entries: list[Event] = []
    for seq in range(1, count + 1):
        previous = entries[-1].hash if entries else GENESIS
        body = canonical({"channel": "cli", "number": seq, "text": "ä\0\ud800"})
        at = f"2026-05-01T12:00:{seq:02}.000000Z"
        about = None if seq % 3 == 0 else f"r{seq}"
        entries.append(Event(seq, at, "received", about, body, previous).sealed())
    return entries


ENTRIES = chain(7)
HEADS = [Head(), *(Head(entry.seq, entry.hash) for entry in ENTRIES)]


def test_an_event_comes_back_from_what_a_certificate_holds() -> None:
    for entry in ENTRIES:
        again = Event.from_json(entry.as_json())
        assert again == entry
        assert again.digest() == entry.hash


def test_every_head_that_was_written_down_lies_on_the_chain() -> None:
    assert check_chain(ENTRIES, [Anchor(head, "commit 1") for head in HEADS]) == HEADS[-1]
    assert check_chain(iter(ENTRIES)) == HEADS[-1]


@pytest.mark.parametrize("seq", [1, 4, 7, 9])
def test_anchors_that_contradict_each_other_are_a_failure_whichever_comes_first(seq: int) -> None:
    two = [Anchor(Head(seq, A), "commit 1a2b3c4"), Anchor(Head(seq, B), "--anchor")]
    for anchors in (two, two[::-1]):
        first, second = (anchor.source for anchor in anchors)
        with pytest.raises(ExpungeError) as caught:
            check_chain(ENTRIES, anchors)
        assert str(caught.value) == (
            f"ledger: two anchors of event {seq} contradict each other: {first} and {second}; "
            "one of them is forged, or of another ledger"
        )


def test_a_forged_anchor_does_not_hide_the_auditors() -> None:
    forged = [*ENTRIES[:3], *chain(9)[3:]]
    forged[3] = Event(4, forged[3].at, "received", "r9", "{}", ENTRIES[2].hash).sealed()
    for place in range(4, 9):
        old = forged[place]
        forged[place] = Event(
            old.seq, old.at, old.kind, old.request, old.text, forged[place - 1].hash
        ).sealed()
    trailer = Anchor(Head(9, forged[8].hash), "commit 1a2b3c4")
    assert check_chain(forged, [trailer]) == trailer.head
    with pytest.raises(ExpungeError, match=r"event 5 is not the one that was anchored \(--anchor\)"):
        check_chain(forged, [trailer, Anchor(HEADS[5], "--anchor")])


def test_an_anchor_before_the_first_event_is_of_no_other_ledger() -> None:
    assert check_chain(ENTRIES, [Anchor(Head(), "a tag")]) == HEADS[-1]
    with pytest.raises(ExpungeError, match=r"event 0 is not the one that was anchored \(a tag\)"):
        check_chain(ENTRIES, [Anchor(Head(0, A), "a tag")])


@pytest.mark.parametrize("start", range(8))
def test_a_part_is_checked_from_where_it_begins(start: int) -> None:
    tail = ENTRIES[start:]
    for anchored in range(8):
        assert check_chain(tail, [Anchor(HEADS[anchored], "the mark")], HEADS[start]) == HEADS[-1]
    with pytest.raises(ExpungeError, match=rf"event {start} is not the one that was anchored"):
        check_chain(tail, [Anchor(Head(start, A), "the mark")], HEADS[start])
    with pytest.raises(ExpungeError, match=r"event 8 was anchored \(the mark\), but the ledger ends at 7"):
        check_chain(tail, [Anchor(Head(8, A), "the mark")], HEADS[start])
    if tail:
        with pytest.raises(ExpungeError, match=rf"event {start + 1} was not written after event {start}"):
            check_chain(tail, [], Head(start, A))


def test_a_start_that_is_not_there_is_missed() -> None:
    with pytest.raises(ExpungeError, match="event 1 is missing; event 3 follows 0"):
        check_chain(ENTRIES[2:])
