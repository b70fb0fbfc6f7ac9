from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import states
from tasks.requests.events import TRANSITIONS
from tasks.requests.states import ENDED, NEXT, OPEN, State, Status

LIFE = [
    "received", "validated", "approved", "batched", "started", "audited", "promoted", "purging", "purged",
    "closed",
]  # fmt: skip


def state_of(kinds: Iterable[str]) -> State:
    return states.state_of(kinds, TRANSITIONS, "r1")


def refusal(*kinds: str) -> str:
    with pytest.raises(ExpungeError) as caught:
        state_of(kinds)
    return str(caught.value).removeprefix("request r1 ")


def test_the_life_of_a_request_that_succeeds() -> None:
    statuses = [state_of(LIFE[: end + 1]).status for end in range(len(LIFE))]
    assert statuses == [
        "received", "validated", "approved", "batched", "running", "audited", "promoted", "purging",
        "purged", "closed",
    ]  # fmt: skip


def test_approval_can_be_left_out() -> None:
    assert state_of([kind for kind in LIFE if kind != "approved"]).status is Status.CLOSED


@pytest.mark.parametrize(("kind", "target"), [("rejected", "rejected"), ("duplicate", "duplicate")])
def test_intake_can_end_a_request(kind: str, target: str) -> None:
    assert state_of(["received", kind]).status == target


def test_nothing_happens_to_a_request_that_has_ended_and_every_other_can_go_on() -> None:
    for status in Status:
        going = {kind: each for kind, each in TRANSITIONS.items() if each.target or each.back}
        possible = [kind for kind, transition in going.items() if status in transition.sources]
        assert (possible == []) == (status in ENDED)
        assert (status in NEXT) == (status in OPEN)


def test_every_status_can_be_reached_and_every_open_one_can_end() -> None:
    edges = {
        (source, transition.target)
        for transition in TRANSITIONS.values()
        for source in transition.sources
        if transition.target
    }
    reached = {Status.RECEIVED}
    for _ in Status:
        reached |= {target for source, target in edges if source in reached}
    assert reached == set(Status)
    ending = set(ENDED)
    for _ in Status:
        ending |= {source for source, target in edges if target in ending}
    assert ending == set(Status)


def test_a_failed_request_is_tried_again_where_it_failed() -> None:
    for end in range(LIFE.index("batched"), LIFE.index("purged") + 1):
        until = LIFE[: end + 1]
        failed = state_of([*until, "failed"])
        assert failed.status is Status.FAILED
        assert state_of([*until, "failed", "retried"]).status is state_of(until).status
    assert state_of([*LIFE[:4], "failed", "retried", "started", "failed", "retried"]).status is Status.RUNNING


def test_the_next_method_of_the_chain_starts_after_the_audit() -> None:
    assert state_of([*LIFE[:6], "started", "audited", "promoted"]).status is Status.PROMOTED


def test_a_hold_keeps_the_status_and_stops_what_cannot_be_undone() -> None:
    held = state_of(["received", "validated", "held"])
    assert held == State(Status.VALIDATED, True, None, frozenset({"received", "validated", "held"}))
    assert (
        refusal("received", "validated", "held", "batched")
        == "is on legal hold; 'batched' waits for its release"
    )
    assert refusal(*LIFE[:7], "held", "purged") == "is on legal hold; 'purged' waits for its release"
    assert state_of([*LIFE[:7], "held", "released", "purged"]).status is Status.PURGED
    assert state_of(["received", "held", "held"]).held  # by another hold
    assert refusal("received", "released") == "is not on hold"


def test_a_due_date_is_extended_once() -> None:
    assert "once" in refusal("received", "extended", "extended")


def test_what_a_status_does_not_allow_is_refused_with_what_would() -> None:
    assert (
        refusal("received", "approved") == "is received; 'approved' can happen only to one that is validated"
    )
    assert refusal("received", "received") == "is received; 'received' can happen only to one that is new"
    assert refusal("approved") == "request 'r1' is not in the ledger; expunge list shows those that are"


def test_no_order_of_events_erases_before_promotion() -> None:
    needed = {"validated", "batched", "started", "audited", "promoted"}
    states = {State(): frozenset[str]()}
    seen = set()
    while states:
        state, kinds = states.popitem()
        for kind in TRANSITIONS:
            try:
                after = state.follow(kind, TRANSITIONS, "r1")
            except ExpungeError:
                continue
            if after.status is Status.PURGED:
                assert needed <= kinds | {kind}
            if after not in seen:
                seen.add(after)
                states[after] = kinds | {kind}
    assert len(seen) > 100


def test_every_event_is_documented_in_the_order_of_a_life() -> None:
    assert [kind for kind in TRANSITIONS if kind in LIFE] == LIFE
    assert all(re.fullmatch("[a-z]+", kind) for kind in itertools.chain(TRANSITIONS, Status))
