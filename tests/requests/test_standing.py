from __future__ import annotations

import random
from contextlib import suppress

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tasks.requests import events as facts
from tasks.requests.events import TRANSITIONS, Fact
from tasks.requests.ledger import Ledger
from tasks.requests.standing import Row, follow
from tasks.requests.states import ENDED, State, TransitionError
from tests.requests.conftest import LIFE, Clock
from tests.requests.filling import append

NAMES = [f"20260501-{number:08x}" for number in range(6)]


def facts_of_requests(rng: random.Random) -> list[Fact]:
    """One event of every kind in a request's life, with what a row takes from it drawn at random."""
    told: list[Fact] = []
    for kind in TRANSITIONS:
        if kind == "received":
            month = rng.randrange(1, 10)
            when = f"2026-0{month}-01T00:00:00.000000Z" if rng.random() < 0.8 else None
            told.append(
                facts.Received(requester=f"crm:{month}", ground="other", received_at=when, due_at=when)
            )
        elif kind == "validated":
            samples = tuple({"id": f"{number:064x}"} for number in range(rng.randrange(4)))
            told.append(facts.Validated(samples=samples))
        elif kind == "behind":
            told.append(facts.Behind(first=rng.choice(NAMES)))
        elif kind == "advanced":
            told.append(facts.Advanced(first=rng.choice(NAMES)))
        elif kind == "duplicate":
            told.append(facts.Duplicate(first=rng.choice(["", *NAMES])))
        elif kind == "extended":
            told.append(facts.Extended(by="dpo", due_at=rng.choice(["", "2027-01-01T00:00:00.000000Z"])))
        elif kind == "batched":
            told.append(facts.Batched(batch=f"batch-{rng.randrange(3)}"))
        else:
            told.append(facts.KINDS[kind]())
    return told


def run_on(ledger: Ledger, rng: random.Random, count: int) -> set[str]:
    """Append events that are allowed, drawn at random; those that end a request less often."""
    kinds: set[str] = set()
    with ledger.writing() as writer:
        for _ in range(count):
            name, state = rng.choice([(name, writer.state(name)) for name in NAMES])
            allowed = [fact for fact in facts_of_requests(rng) if may_follow(state, fact)]
            if not allowed:
                continue
            going = [fact for fact in allowed if TRANSITIONS[fact.kind].target not in ENDED]
            fact = rng.choice(going if going and rng.random() < 0.97 else allowed)
            kinds.add(writer.append(fact, name).kind)
    return kinds


def may_follow(state: State, fact: Fact) -> bool:
    with suppress(TransitionError):
        state.follow(fact.kind, TRANSITIONS, "r")
        return True
    return False


@pytest.mark.parametrize("seed", range(5))
def test_the_table_is_what_the_events_tell_whatever_has_happened(
    url: str, ledger: Ledger, clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    with ledger.writing() as writer:
        append(writer, "whole life", facts.Received(), facts.Validated(), *LIFE, facts.Unkeyed())
    kinds: set[str] = set()
    for _ in range(6):
        kinds |= run_on(ledger, rng, 25)
        clock.forward(seconds=1)
        derived = follow(ledger.events())
        assert {row.request: row for row in ledger.rows()} == derived
        assert ledger.standing_differs() == []
        assert [row.request for row in ledger.rows(only_open=True)] == [
            row.request for row in ledger.rows() if row.status not in ENDED
        ]
    assert len(kinds) > 12
    before, head = ledger.rows(), ledger.head()
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text("DROP TABLE expunge_standing"))
        connection.execute(text("DROP TABLE expunge_standing_upto"))
    assert ledger.rows() == before
    assert ledger.head() == head
    run_on(ledger, rng, 25)
    assert {row.request: row for row in ledger.rows()} == follow(ledger.events())


def changed(url: str, statement: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE expunge_standing SET status = 'closed' WHERE request = 'r1'",
        "UPDATE expunge_standing SET due_at = '2099-01-01T00:00:00.000000Z' WHERE request = 'r1'",
        "UPDATE expunge_standing SET held = (1 = 1) WHERE request = 'r1'",
        "UPDATE expunge_standing SET samples = 7 WHERE request = 'r1'",
        "DELETE FROM expunge_standing WHERE request = 'r1'",
    ],
)
def test_a_row_that_was_changed_by_hand_is_named_and_made_anew(
    url: str, ledger: Ledger, statement: str
) -> None:
    with ledger.writing() as writer:
        for name in ("r0", "r1"):
            append(writer, name, facts.Received(due_at="2026-06-01T00:00:00.000000Z"), facts.Validated())
    before = ledger.rows()
    changed(url, statement)
    assert ledger.standing_differs() == ["r1"]
    ledger.rebuild_standing()
    assert ledger.standing_differs() == []
    assert ledger.rows() == before


def test_a_row_of_a_request_that_never_was_is_named(url: str, ledger: Ledger) -> None:
    with ledger.writing() as writer:
        append(writer, "r0", facts.Received(), facts.Validated())
    changed(url, "UPDATE expunge_standing SET request = 'r9' WHERE request = 'r0'")
    assert ledger.standing_differs() == ["r0", "r9"]


def test_requests_stand_in_the_order_in_which_they_came_whatever_their_ids(ledger: Ledger) -> None:
    late, early = "2026-05-02T00:00:00.000000Z", "2026-05-01T00:00:00.000000Z"
    with ledger.writing() as writer:
        for name, at in (("c", late), ("b", early), ("d", early), ("a", early)):
            writer.append(facts.Received(received_at=at), name)
        writer.append(facts.Validated(), "b")  # what happens later changes no order
    assert [row.request for row in ledger.rows()] == ["b", "d", "a", "c"]


def test_rows_are_found_by_request_requester_batch_and_what_waits_behind(ledger: Ledger) -> None:
    with ledger.writing() as writer:
        for number in range(4):
            received = facts.Received(requester=f"crm:{number % 2}")
            append(writer, f"r{number}", received, facts.Validated(samples=({"id": "0"},)))
        append(writer, "r1", facts.Batched(batch="b"))
        append(writer, "r2", facts.Behind(first="r0"))
        append(writer, "r3", facts.Refused())

    def found(**filters: object) -> list[str]:
        return [row.request for row in ledger.rows(**filters)]

    assert found() == ["r0", "r1", "r2", "r3"]
    assert found(request="r1") == ["r1"]
    assert found(request="r9") == []
    assert found(requester="crm:1") == ["r1", "r3"]
    assert found(requester="crm:1", only_open=True) == ["r1"]
    assert found(batch="b") == ["r1"]
    assert found(only_behind=True) == ["r2"]
    assert ledger.rows(request="r2") == [
        Row(
            "r2",
            5,
            facts.S.BEHIND,
            None,
            False,
            ledger.events("r2")[0].at,
            None,
            "crm:0",
            None,
            None,
            "r0",
            1,
        )
    ]


def test_the_table_follows_a_ledger_that_a_version_without_it_has_written_to(
    url: str, ledger: Ledger, clock: Clock
) -> None:
    from tests.requests.filling import write

    with ledger.writing() as writer:
        append(writer, "r0", facts.Received(), facts.Validated())
    write(ledger, url, [("held", "r0", {"by": "x"}), ("received", "r1", {"channel": "cli"})], clock())
    assert {row.request: (str(row.status), row.held) for row in ledger.rows()} == {
        "r0": ("validated", True),
        "r1": ("received", False),
    }
    assert ledger.standing_differs() == []
