from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import check_chain
from tasks.requests.desk import Desk, urgency
from tasks.requests.keys import reference
from tasks.requests.request import Request
from tests.requests.conftest import LIFE, Clock, go_on, row_of, submission, submit, without

RISK = timedelta(days=7)


def test_a_good_request_is_received_and_validated(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(
        desk, catalogue, samples={"id": ["train/3.png"], "index": [4], "path": ["train.parquet#5"]}
    )
    assert [event.kind for event in request.events] == ["received", "validated"]
    assert request.count == 3
    assert request.due_at == "2026-06-01T23:59:59.999999Z"
    received = request.events[0].fact
    assert isinstance(received, facts.Received)
    assert received.requester == "crm:4711"
    assert received.ground == "consent-withdrawn"
    assert received.received_at == "2026-05-01T09:30:00.000000Z"
    check_chain(desk.ledger.events())


def test_the_ledger_names_samples_by_keyed_digests_alone(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue, samples={"class": ["cat"]})
    key = desk.keys.load(request.id)
    ids = [f"train/{number}.png" for number in (0, 2, 4, 6, 8, 10)]
    assert request.digests["id"] == {reference(key, "id", sample_id) for sample_id in ids}
    assert "train" not in json.dumps([event.as_json() for event in request.events])


def test_two_requests_for_a_sample_have_different_references(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue)
    second = submit(desk, catalogue, samples={"id": ["train/3.png", "train/4.png"]})
    assert not first.digests["id"] & second.digests["id"]


def test_a_bad_request_is_rejected_whole_and_its_payload_not_kept(desk: Desk, catalogue: Catalogue) -> None:
    receipt = desk.submit(
        submission(samples={"id": ["train/3.png", "train/99.png", "test/9.png"]}),
        "a.json",
        catalogue,
        channel="cli",
    )
    assert receipt.request.state.status == "rejected"
    assert [str(problem) for problem in receipt.problems] == [
        "line 1: id 'train/99.png': is no sample id",
        "line 1: id 'test/9.png': is no sample id",
    ]
    kept = json.dumps([event.as_json() for event in receipt.request.events])
    assert "png" not in kept
    assert "is no sample id" in kept
    assert "crm:4711" not in kept
    assert not desk.keys.exists(receipt.request.id)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ({"id": ["train/3.png"], "index": [3]}, "means a sample that is named before"),
        ({"id": ["train/3.png"], "class": ["dog"]}, "means a sample that is named before"),
        ({"path": ["train.parquet#3"], "index": [3]}, "means a sample that is named before"),
    ],
)
def test_a_sample_named_twice_in_two_ways_is_refused(
    desk: Desk, catalogue: Catalogue, samples: dict[str, object], reason: str
) -> None:
    receipt = desk.submit(submission(samples=samples), "a.json", catalogue, channel="cli")
    assert [problem.what for problem in receipt.problems] == [f"{reason} in line 1"]


def test_times_are_held_against_the_clock(desk: Desk, catalogue: Catalogue, clock: Clock) -> None:
    future = desk.submit(submission(received_at="2026-05-01T12:06:00Z"), "a.json", catalogue, channel="cli")
    assert [problem.what for problem in future.problems] == ["lies in the future"]
    late = desk.submit(submission(due_at="2026-06-02T00:00:00Z"), "a.json", catalogue, channel="cli")
    assert "later than 1 month(s) after received_at" in late.problems[0].what
    assert submit(desk, catalogue, due_at="2026-05-03T00:00:00Z").due_at == "2026-05-03T00:00:00.000000Z"
    clock.forward(days=400)
    old = submit(desk, catalogue, samples={"index": [1]})
    assert urgency(row_of(desk, old), clock(), RISK) == "overdue"


def test_a_month_ends_with_its_last_day(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue, received_at="2025-01-31T10:00:00Z")
    assert request.due_at == "2025-02-28T23:59:59.999999Z"


def test_the_same_samples_again_wait_behind_the_first_at_every_stage(
    desk: Desk, catalogue: Catalogue
) -> None:
    first = submit(desk, catalogue, samples={"id": ["train/3.png", "train/4.png"]})
    for fact in (None, *LIFE[:-1]):
        if fact:
            go_on(desk, first, fact)
        again = submit(desk, catalogue, samples={"index": [4], "path": ["train.parquet#3"]})
        assert [event.kind for event in again.events] == ["received", "validated", "behind"]
        assert (again.state.status, again.first) == ("behind", first.id)
        assert row_of(desk, again).first == first.id
        assert desk.keys.exists(again.id)  # if the first comes to nothing, this one takes its place


def test_the_same_samples_again_are_a_duplicate_once_the_first_is_closed(
    desk: Desk, catalogue: Catalogue
) -> None:
    samples = {"id": ["train/3.png", "train/4.png"]}
    first = submit(desk, catalogue, samples=samples)
    go_on(desk, first, *LIFE)
    again = submit(desk, without(catalogue, *samples["id"]), samples=samples)
    assert [event.kind for event in again.events] == ["received", "duplicate"]
    assert (again.state.status, again.first) == ("duplicate", first.id)
    assert not desk.keys.exists(again.id)


def test_what_was_erased_and_is_gone_is_a_duplicate_by_any_name(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue, samples={"id": ["train/3.png", "train/4.png"]})
    go_on(desk, first, *LIFE)
    left = without(catalogue, "train/3.png", "train/4.png")
    for samples in ({"id": ["train/3.png"]}, {"path": ["train.parquet#4"]}, {"index": [3, 4]}):
        again = submit(desk, left, samples=samples)
        assert (again.state.status, again.first) == ("duplicate", first.id)
    more = submit(desk, left, samples={"id": ["train/3.png", "train/5.png"]})
    assert (more.state.status, more.count) == ("validated", 1)
    validated = more.latest(facts.Validated)
    assert validated is not None
    assert validated.already_erased_by == (first.id,)
    unknown = desk.submit(submission(samples={"id": ["train/77.png"]}), "a.json", left, channel="cli")
    assert unknown.request.state.status == "rejected"


def test_once_a_key_is_destroyed_its_request_recognises_nothing(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue)
    desk.keys.destroy(first.id)
    assert submit(desk, catalogue).state.status == "validated"


@pytest.mark.parametrize("end", ["refused", "rejected"])
def test_a_request_that_came_to_nothing_can_be_made_again(desk: Desk, catalogue: Catalogue, end: str) -> None:
    if end == "refused":
        desk.decide(facts.Refused(by="me", reason="no identity"), submit(desk, catalogue).id)
    else:
        submit(desk, catalogue, ground="why")
    assert submit(desk, catalogue).state.status == "validated"


def test_an_id_is_taken_once(desk: Desk, catalogue: Catalogue) -> None:
    for _ in range(2):
        receipt = desk.submit(
            submission(), "a.json", catalogue, channel="prefect", request="20260501-00000000"
        )
        assert receipt.request.id == "20260501-00000000"
        assert receipt.request.state.status == "validated"
    assert len(desk.ledger.events()) == 2


def test_one_of_many_simultaneous_submissions_is_first(desk: Desk, catalogue: Catalogue) -> None:
    found: list[Request] = []
    threads = [threading.Thread(target=lambda: found.append(submit(desk, catalogue))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(request.state.status) for request in found) == ["behind"] * 5 + ["validated"]
    (first,) = (request.id for request in found if request.state.status == "validated")
    assert {request.first for request in found} == {None, first}
    check_chain(desk.ledger.events())


def test_decisions_are_recorded_with_who_and_why(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue)
    held = desk.decide(facts.Held(by="dpo", reason="  court\n case 7 "), request.id)
    assert held.state.held
    assert held.events[-1].raw == {"by": "dpo", "reason": "court case 7"}
    (row,) = desk.rows()
    assert desk.next_of(row).startswith("on legal hold until that is lifted")
    assert not desk.decide(facts.Released(by="dpo", reason="settled"), request.id).state.held
    assert desk.decide(facts.Approved(by="dpo"), request.id).state.status == "approved"


@pytest.mark.parametrize("decision", [facts.Refused, facts.Withdrawn, facts.Held, facts.Extended])
def test_a_decision_against_the_requester_needs_a_reason(
    desk: Desk, catalogue: Catalogue, decision: type[facts.Decision]
) -> None:
    request = submit(desk, catalogue)
    with pytest.raises(ExpungeError, match="give a reason"):
        desk.decide(decision(by="me", reason=" \n "), request.id)
    assert desk.show(request.id) == request


def test_a_due_date_moves_once_by_two_months(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue)
    many = facts.Extended(by="me", reason="many")
    assert desk.decide(many, request.id).due_at == "2026-08-03T23:59:59.999999Z"
    assert row_of(desk, request).due_at == "2026-08-03T23:59:59.999999Z"
    with pytest.raises(ExpungeError, match="possible once"):
        desk.decide(many, request.id)
    with pytest.raises(ExpungeError, match=r"^request '?nope'? is not in the ledger"):
        desk.decide(many, "nope")


def test_urgency_follows_the_clock_and_ends_with_the_request(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    request = submit(desk, catalogue)
    seen = []
    for days in (0, 24, 0.5, 6.5, 0.5):  # the last day is still in time, to its end
        clock.forward(days=days)
        seen.append(urgency(row_of(desk, request), clock(), RISK))
    assert seen == ["on time", "on time", "at risk", "at risk", "overdue"]
    go_on(desk, request, *LIFE)
    assert urgency(row_of(desk, request), clock(), RISK) == "-"


def test_only_what_may_be_processed_is_ready(desk: Desk, catalogue: Catalogue) -> None:
    requests = [submit(desk, catalogue, samples={"index": [number]}) for number in range(5)]
    desk.decide(facts.Approved(by="me"), requests[1].id)
    desk.decide(facts.Held(by="me", reason="court"), requests[2].id)
    desk.decide(facts.Refused(by="me", reason="no identity"), requests[3].id)
    go_on(desk, requests[4], LIFE[0])
    assert [each.request for each in desk.ready()] == [requests[0].id, requests[1].id]
    gated = Desk(desk.ledger, desk.keys, desk.settings.model_copy(update={"approval": True}), desk.clock)
    assert [each.request for each in gated.ready()] == [requests[1].id]


def test_an_unknown_request_is_one_line(desk: Desk) -> None:
    with pytest.raises(ExpungeError, match="request 'nope' is not in the ledger; expunge list shows"):
        desk.show("nope")
    assert desk.requests() == []


def test_a_ledger_that_cannot_be_written_leaves_no_key(desk: Desk, catalogue: Catalogue) -> None:
    submit(desk, catalogue)
    before = sorted(desk.keys.folder.iterdir())
    broken = Desk(
        type(desk.ledger)("sqlite:////proc/nowhere/ledger.db"), desk.keys, desk.settings, desk.clock
    )
    with pytest.raises((ExpungeError, OSError)):
        submit(broken, catalogue, samples={"index": [1]})
    assert sorted(desk.keys.folder.iterdir()) == before
