from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests import pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import check_chain
from tasks.requests.copies import Copies
from tasks.requests.desk import Desk
from tasks.requests.ledger import Writer
from tasks.requests.record import own_events
from tasks.requests.request import Request
from tests.requests.conftest import LIFE, Clock, go_on, row_of, submission, submit, without

TWO = {"id": ["train/3.png", "train/4.png"]}
NO = {"by": "me", "reason": "no identity"}


def kinds(request: Request) -> list[str]:
    return [event.kind for event in request.events]


def statuses(desk: Desk, *requests: Request) -> list[tuple[str, str | None]]:
    return [(str(row.status), row.first) for row in (row_of(desk, request) for request in requests)]


# behind


@pytest.mark.parametrize("decision", [facts.Refused, facts.Withdrawn])
def test_the_earliest_behind_takes_the_place_of_one_that_comes_to_nothing(
    desk: Desk, catalogue: Catalogue, decision: type[facts.Decision]
) -> None:
    first = submit(desk, catalogue, received_at="2026-05-01T10:00:00Z")
    late = submit(desk, catalogue, received_at="2026-05-01T09:30:00Z")
    early = submit(desk, catalogue, received_at="2026-05-01T09:00:00Z")
    last = submit(desk, catalogue, received_at="2026-05-01T09:45:00Z")
    assert statuses(desk, late, early, last) == [("behind", first.id)] * 3
    desk.decide(decision(**NO), first.id)
    assert statuses(desk, early, late, last) == [
        ("validated", None), ("behind", early.id), ("behind", early.id),
    ]  # fmt: skip
    assert [row.request for row in desk.ready()] == [early.id]
    assert desk.show(early.id).first is None
    assert desk.show(late.id).first == early.id
    assert kinds(desk.show(early.id)) == ["received", "validated", "behind", "advanced"]
    desk.decide(decision(**NO), early.id)
    assert statuses(desk, late, last) == [("validated", None), ("behind", late.id)]
    desk.decide(decision(**NO), last.id)  # one behind can come to nothing, too, and nobody moves
    assert statuses(desk, late) == [("validated", None)]
    again = submit(desk, catalogue)
    assert statuses(desk, again) == [("behind", late.id)]


def test_one_that_waits_behind_becomes_a_duplicate_once_the_first_is_closed(
    desk: Desk, catalogue: Catalogue
) -> None:
    first, behind = submit(desk, catalogue), submit(desk, catalogue)
    go_on(desk, first, *LIFE)
    found = go_on(desk, behind, facts.Duplicate(first=first.id))  # as processing does when it closes one
    assert (str(found.state.status), found.first, found.open) == ("duplicate", first.id, False)
    assert row_of(desk, behind).first == first.id


@pytest.mark.parametrize("filters", [{}, {"only_open": True}, {"requester": "a"}, "request"])
def test_the_earliest_due_date_of_those_behind_governs_the_first(
    desk: Desk, catalogue: Catalogue, filters: Any
) -> None:
    first = submit(desk, catalogue, requester="a")
    submit(desk, catalogue, requester="b", due_at="2026-05-20T00:00:00Z")
    urgent = submit(desk, catalogue, requester="c", due_at="2026-05-10T00:00:00Z")
    chosen = {"request": first.id} if filters == "request" else filters
    (row,) = (row for row in desk.rows(**chosen) if row.request == first.id)
    assert row.due_at == "2026-05-10T00:00:00.000000Z"
    desk.decide(facts.Withdrawn(**NO), urgent.id)
    assert row_of(desk, first).due_at == "2026-05-20T00:00:00.000000Z"
    assert desk.show(first.id).due_at == "2026-06-01T23:59:59.999999Z"  # its own, as it was promised


def test_a_later_due_date_behind_changes_nothing(desk: Desk, catalogue: Catalogue, clock: Clock) -> None:
    first = submit(desk, catalogue, due_at="2026-05-05T00:00:00Z")
    submit(desk, catalogue)
    assert row_of(desk, first).due_at == "2026-05-05T00:00:00.000000Z"


def test_other_samples_wait_behind_nobody(desk: Desk, catalogue: Catalogue) -> None:
    submit(desk, catalogue, samples=TWO)
    for samples in ({"index": [3]}, {"index": [3, 4, 5]}, {"index": [3, 5]}):
        assert kinds(submit(desk, catalogue, samples=samples)) == ["received", "validated"]


@pytest.mark.parametrize("damage", [None, b"short"])
def test_a_lost_or_damaged_key_of_one_request_stops_no_other(
    desk: Desk, catalogue: Catalogue, damage: bytes | None
) -> None:
    first = submit(desk, catalogue)
    path = desk.keys.folder / f"{first.id}.key"
    path.unlink()
    if damage:
        path.write_bytes(damage)
    assert kinds(submit(desk, catalogue)) == ["received", "validated"]
    receipt = desk.submit(submission(samples={"index": [77]}), "a.json", catalogue, channel="cli")
    assert [problem.what for problem in receipt.problems] == ["is no row of the source's training part"]


# withdrawal and refusal, at every status

UNTIL: dict[str, tuple[facts.Fact, ...]] = {
    "validated": (),
    "approved": (facts.Approved(by="dpo"),),
    "batched": LIFE[:1],
    "running": LIFE[:2],
    "audited": LIFE[:3],
    "failed": (*LIFE[:3], facts.Failed(batch="b")),
}
AFTER: dict[str, tuple[facts.Fact, ...]] = {
    "promoted": LIFE[:4],
    "purging": LIFE[:5],
    "purged": LIFE[:6],
    "closed": LIFE,
}


@pytest.mark.parametrize("decision", [facts.Refused, facts.Withdrawn])
@pytest.mark.parametrize("status", ["received", "behind", *UNTIL])
def test_a_request_can_be_taken_back_until_its_batch_is_promoted(
    desk: Desk, catalogue: Catalogue, status: str, decision: type[facts.Decision]
) -> None:
    if status == "behind":
        submit(desk, catalogue)
    request = submit(desk, None if status == "received" else catalogue)
    go_on(desk, request, *UNTIL.get(status, ()))
    assert row_of(desk, request).status == status
    decided = desk.decide(decision(**NO), request.id)
    assert str(decided.state.status) == decision.kind
    assert decided.latest(decision) == decision(**NO)
    assert list(pending.waiting()) == []


@pytest.mark.parametrize("decision", [facts.Refused, facts.Withdrawn])
@pytest.mark.parametrize("status", AFTER)
def test_afterwards_it_is_refused_with_a_whole_sentence(
    desk: Desk, catalogue: Catalogue, status: str, decision: type[facts.Decision]
) -> None:
    request = go_on(desk, submit(desk, catalogue), *AFTER[status])
    with pytest.raises(ExpungeError) as caught:
        desk.decide(decision(**NO), request.id)
    assert str(caught.value).startswith(
        f"request {request.id} is {status}; {decision.kind!r} can happen only to one that is received, "
        "validated, behind, approved, batched, running, audited, "
    )
    assert desk.show(request.id) == request


@pytest.mark.parametrize("decision", [facts.Refused, facts.Withdrawn])
@pytest.mark.parametrize("count", [4, 5, 6])
def test_a_failure_past_promotion_can_only_be_tried_again(
    desk: Desk, catalogue: Catalogue, count: int, decision: type[facts.Decision]
) -> None:
    request = go_on(desk, submit(desk, catalogue), *LIFE[:count], facts.Failed(batch="b"))
    with pytest.raises(ExpungeError) as caught:
        desk.decide(decision(**NO), request.id)
    assert str(caught.value) == (
        f"request {request.id} failed after its batch was promoted; {decision.kind!r} would leave copies "
        "that nobody purges: expunge retry"
    )
    retried = desk.decide(facts.Retried(by="me"), request.id)
    assert str(retried.state.status) == ["promoted", "purging", "purged"][count - 4]


# without a catalogue


def test_what_cannot_be_resolved_is_received_dated_and_resolved_later(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    request = submit(desk, None)
    assert (kinds(request), str(request.state.status)) == (["received"], "received")
    row = row_of(desk, request)
    assert (row.received_at, row.due_at, row.requester, row.samples) == (
        "2026-05-01T09:30:00.000000Z", "2026-06-01T23:59:59.999999Z", "crm:4711", None,
    )  # fmt: skip
    assert not desk.keys.exists(request.id)
    ((name, path),) = pending.waiting()
    assert (name, path.stat().st_mode & 0o777) == (request.id, 0o600)
    assert "png" not in request.events[0].text
    clock.forward(days=40)
    (receipt,) = desk.resolve(catalogue)
    assert kinds(receipt.request) == ["received", "validated"]
    assert receipt.request.due_at == request.due_at
    assert row_of(desk, request).samples == 1
    assert desk.keys.exists(request.id)
    assert list(pending.waiting()) == []
    assert list(desk.resolve(catalogue)) == []


def test_one_that_means_nothing_is_rejected_when_it_is_resolved(desk: Desk, catalogue: Catalogue) -> None:
    submit(desk, None, samples={"id": ["train/3.png", "train/77.png"]})
    good = submit(desk, None, samples={"index": [1]})
    receipts = {receipt.request.id: receipt for receipt in desk.resolve(catalogue)}
    assert {str(each.request.state.status) for each in receipts.values()} == {"rejected", "validated"}
    (bad,) = (each for name, each in receipts.items() if name != good.id)
    assert [problem.what for problem in bad.problems] == ["is no sample id"]
    assert kinds(bad.request) == ["received", "rejected"]
    assert not desk.keys.exists(bad.request.id)
    assert list(pending.waiting()) == []


def test_one_that_is_no_request_is_rejected_at_once(desk: Desk, root: Path) -> None:
    receipt = desk.submit(submission(ground="why"), "a.json", None, channel="cli")
    assert kinds(receipt.request) == ["received", "rejected"]
    assert list(pending.waiting()) == []


def test_what_others_asked_for_meanwhile_counts_when_it_is_resolved(desk: Desk, catalogue: Catalogue) -> None:
    waits = submit(desk, None)
    first = submit(desk, catalogue)
    (receipt,) = desk.resolve(catalogue)
    assert (str(receipt.request.state.status), receipt.request.first) == ("behind", first.id)
    gone = submit(desk, None, samples=TWO)
    go_on(desk, submit(desk, catalogue, samples=TWO), *LIFE)
    (receipt,) = desk.resolve(without(catalogue, *TWO["id"]))
    assert (receipt.request.id, str(receipt.request.state.status)) == (gone.id, "duplicate")
    assert statuses(desk, waits) == [("behind", first.id)]


def test_one_that_ended_while_it_waited_is_not_resolved(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, None)
    ((_, path),) = pending.waiting()
    content = path.read_bytes()
    desk.decide(facts.Withdrawn(**NO), request.id)
    path.write_bytes(content)  # as after a kill before it was deleted
    assert list(desk.resolve(catalogue)) == []
    assert not path.exists()
    assert kinds(desk.show(request.id)) == ["received", "withdrawn"]


def test_a_hold_while_it_waits_stops_no_resolution_and_protects_its_samples(
    desk: Desk, catalogue: Catalogue
) -> None:
    request = submit(desk, None)
    other = submit(desk, None, samples={"index": [1]}, requester="a")
    desk.decide(facts.Held(by="dpo", reason="court"), request.id)
    assert {receipt.request.id for receipt in desk.resolve(catalogue)} == {request.id, other.id}
    assert (row_of(desk, request).status, row_of(desk, request).held) == ("validated", True)
    assert list(desk.held_samples(catalogue.sources)) == [(request.id, {"train/3.png"})]


def test_standing_holds_catch_what_waits(desk: Desk, catalogue: Catalogue) -> None:
    of_requester = desk.place_hold(by="dpo", reason="court", requester="crm:4711")
    of_sample = desk.place_hold(by="dpo", reason="court", ids=["train/3.png"])
    request = submit(desk, None)
    assert set(request.holds) == {of_requester}
    (receipt,) = desk.resolve(catalogue)
    assert set(receipt.request.holds) == {of_requester, of_sample}


def test_a_kill_between_the_submission_and_its_event_leaves_nothing(
    desk: Desk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    keep = pending.keep

    def dying(*arguments: Any) -> None:
        keep(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pending, "keep", dying)
        with pytest.raises(Killed):
            desk.submit(submission(), "a.json", None, channel="cli", request="20260501-00000000")
    assert desk.ledger.events() == []
    assert len(list(pending.waiting())) == 1
    assert list(desk.resolve(catalogue)) == []
    assert list(pending.waiting()) == []
    again = desk.submit(submission(), "a.json", None, channel="cli", request="20260501-00000000")
    assert kinds(again.request) == ["received"]
    assert len(list(desk.resolve(catalogue))) == 1


def test_a_kill_while_one_is_resolved_is_made_good(
    desk: Desk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dying(*arguments: object, **named: object) -> None:
        raise Killed

    request = submit(desk, None)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying)
        with pytest.raises(Killed):
            list(desk.resolve(catalogue))
    key = desk.keys.load(request.id)
    assert list(desk.resolve(catalogue)) == []
    assert desk.keys.load(request.id) == key
    assert kinds(desk.show(request.id)) == ["received", "validated"]
    assert list(pending.waiting()) == []


def test_two_that_resolve_at_once_lose_no_key(desk: Desk, catalogue: Catalogue) -> None:
    requests = [submit(desk, None, samples={"index": [number]}) for number in range(4)]
    errors: list[BaseException] = []

    def resolve() -> None:
        try:
            list(desk.resolve(catalogue))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=resolve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for request in requests:
        assert kinds(desk.show(request.id)) == ["received", "validated"]
        assert desk.keys.exists(request.id)
    check_chain(desk.ledger.events())


def test_a_lost_submission_stops_no_other(desk: Desk, catalogue: Catalogue) -> None:
    lost, other = submit(desk, None), submit(desk, None, samples={"index": [1]})
    pending.drop(lost.id)
    assert [receipt.request.id for receipt in desk.resolve(catalogue)] == [other.id]
    assert statuses(desk, lost) == [("received", None)]
    assert not pending.is_kept(lost.id)
    assert str(desk.decide(facts.Refused(by="me", reason="lost"), lost.id).state.status) == "refused"


# what is gone from the data


def test_a_class_that_was_erased_as_a_whole_is_a_duplicate(desk: Desk, catalogue: Catalogue) -> None:
    cats = [f"train/{number}.png" for number in (0, 2, 4, 6, 8, 10)]
    first = submit(desk, catalogue, samples={"class": ["cat"]})
    go_on(desk, first, *LIFE)
    left = without(catalogue, *cats)
    again = submit(desk, left, samples={"class": ["cat"]})
    assert (str(again.state.status), again.first) == ("duplicate", first.id)
    assert again.latest(facts.Duplicate) == facts.Duplicate(first=first.id, already_erased_by=(first.id,))
    more = submit(desk, left, samples={"class": ["cat"], "id": ["train/3.png"]})
    assert (str(more.state.status), more.count) == ("validated", 1)


def test_a_class_of_which_all_were_erased_by_their_ids_is_a_duplicate_of_none(
    desk: Desk, catalogue: Catalogue
) -> None:
    cats = [f"train/{number}.png" for number in (0, 2, 4, 6, 8, 10)]
    for part in (cats[:2], cats[2:]):
        go_on(desk, submit(desk, catalogue, samples={"id": part}), *LIFE)
    again = submit(desk, without(catalogue, *cats), samples={"class": ["cat"]})
    assert (str(again.state.status), again.first, row_of(desk, again).first) == ("duplicate", None, None)
    assert again.events[-1].fact.told() == "all that it names was erased before"


def test_a_class_without_samples_is_none_where_nothing_was_ever_erased(
    desk: Desk, catalogue: Catalogue
) -> None:
    dogs = [f"train/{number}.png" for number in (1, 3, 5, 7, 9, 11)]
    receipt = desk.submit(
        submission(samples={"class": ["dog"]}), "a.json", without(catalogue, *dogs), channel="cli"
    )
    assert str(receipt.request.state.status) == "rejected"


def test_a_name_that_only_an_open_request_knows_waits_for_what_becomes_of_that(
    desk: Desk, catalogue: Catalogue
) -> None:
    first = submit(desk, catalogue, samples=TWO)
    left = without(catalogue, *TWO["id"])  # as between the list of what is erased and the promotion
    waits = submit(desk, left, samples=TWO)
    assert (kinds(waits), waits.due_at) == (["received"], "2026-06-01T23:59:59.999999Z")
    assert list(desk.resolve(left)) == []
    assert pending.is_kept(waits.id)
    go_on(desk, first, *LIFE[:4])
    assert list(desk.resolve(left)) == []  # it is promoted, and a hold may keep the images for years
    go_on(desk, first, *LIFE[4:6])
    (receipt,) = desk.resolve(left)
    assert (str(receipt.request.state.status), receipt.request.first) == ("duplicate", first.id)


@pytest.mark.parametrize("failed", [False, True])
def test_a_class_that_is_being_erased_waits_until_it_is(
    desk: Desk, catalogue: Catalogue, failed: bool
) -> None:
    cats = [f"train/{number}.png" for number in (0, 2, 4, 6, 8, 10)]
    first = submit(desk, catalogue, samples={"id": cats})
    go_on(desk, first, *LIFE[:4], *([facts.Failed(batch="b")] if failed else []))
    left = without(catalogue, *cats)
    waits = submit(desk, left, samples={"class": ["cat"], "id": ["train/3.png"]})
    assert kinds(waits) == ["received"]
    go_on(desk, first, *([facts.Retried(by="me")] if failed else []), *LIFE[4:6])
    (receipt,) = desk.resolve(left)
    assert (str(receipt.request.state.status), receipt.request.count) == ("validated", 1)


def test_a_name_that_only_a_refused_request_knew_is_none(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue, samples=TWO)
    left = without(catalogue, *TWO["id"])
    waits = submit(desk, left, samples=TWO)
    desk.decide(facts.Refused(**NO), first.id)
    (receipt,) = desk.resolve(left)
    assert (receipt.request.id, str(receipt.request.state.status)) == (waits.id, "rejected")


def test_a_duplicate_recognises_what_the_first_can_no_longer(desk: Desk, catalogue: Catalogue) -> None:
    first, behind = submit(desk, catalogue), submit(desk, catalogue)
    go_on(desk, first, *LIFE)
    go_on(desk, behind, facts.Duplicate(first=first.id))
    desk.destroy_key(first.id, by="dpo", reason="asked")
    again = submit(desk, without(catalogue, "train/3.png"))
    assert (str(again.state.status), again.first) == ("duplicate", first.id)


# everything


def test_a_request_for_everything_is_refused_at_submission(desk: Desk, catalogue: Catalogue) -> None:
    receipt = desk.submit(submission(samples={"class": ["cat", "dog"]}), "a.json", catalogue, channel="cli")
    assert str(receipt.request.state.status) == "rejected"
    assert [problem.where for problem in receipt.problems] == ["samples"]
    assert "leaves no two training samples of a class" in receipt.problems[0].what
    assert not desk.keys.exists(receipt.request.id)


def test_requests_that_leave_nothing_together_are_refused_at_the_last(
    desk: Desk, catalogue: Catalogue
) -> None:
    cats = submit(desk, catalogue, samples={"class": ["cat"]})
    last = desk.submit(submission(samples={"class": ["dog"]}), "a.json", catalogue, channel="cli")
    assert "with the other open requests" in last.problems[0].what
    most = submit(desk, catalogue, samples={"index": [1, 3, 5, 7]})
    assert str(most.state.status) == "validated"
    assert str(submit(desk, catalogue, samples={"class": ["cat"]}).state.status) == "behind"
    one_more = desk.submit(submission(samples={"index": [9]}), "a.json", catalogue, channel="cli")
    assert str(one_more.request.state.status) == "rejected"
    desk.decide(facts.Withdrawn(**NO), most.id)
    assert str(submit(desk, catalogue, samples={"index": [9]}).state.status) == "validated"
    assert str(row_of(desk, cats).status) == "validated"


def test_everything_is_refused_when_it_is_resolved_too(desk: Desk, catalogue: Catalogue) -> None:
    submit(desk, None, samples={"class": ["cat", "dog"]})
    (receipt,) = desk.resolve(catalogue)
    assert kinds(receipt.request) == ["received", "rejected"]


# ids and keys


@pytest.mark.parametrize("name", ["", "nope", "20260501-0000000", "../../etc", "20260501-0000000G", "erased"])
def test_what_is_no_id_is_refused_before_anything_is_written(
    desk: Desk, catalogue: Catalogue, name: str
) -> None:
    if not name:
        assert submit(desk, catalogue).id.startswith("20260501-")
        return
    with pytest.raises(ExpungeError, match="is no request id; one looks like"):
        desk.submit(submission(), "a.json", catalogue, channel="inbox", request=name)
    assert desk.ledger.events() == []


def test_many_submissions_with_one_id_are_one_request_with_one_key(desk: Desk, catalogue: Catalogue) -> None:
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(
                desk.submit(submission(), "a.json", catalogue, channel="prefect", request="20260501-00000000")
            )
        except BaseException as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(each.request.state.status) for each in found] == ["validated"] * 6
    assert len(desk.ledger.events()) == 2
    assert desk.keys.exists("20260501-00000000")


def test_a_key_that_a_killed_submission_left_is_used(desk: Desk, catalogue: Catalogue) -> None:
    key = desk.keys.create("20260501-00000000")
    receipt = desk.submit(submission(), "a.json", catalogue, channel="cli", request="20260501-00000000")
    assert kinds(receipt.request) == ["received", "validated"]
    assert desk.keys.load("20260501-00000000") == key


def test_a_submission_that_cannot_be_kept_leaves_no_key(
    desk: Desk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.requests import holds

    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(holds, "catch", broken)
        with pytest.raises(OSError, match="No space"):
            submit(desk, catalogue)
    assert list(desk.keys.folder.glob("*.key")) == []
    assert desk.ledger.events() == []


def test_the_record_of_a_submission_speaks_of_nobody_else(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue)
    behind = submit(desk, catalogue, requester="crm:1")
    told = json.dumps([event.as_json() for event in behind.events])
    assert "crm:4711" not in told
    assert first.id in told  # by its id alone


def test_a_submission_reads_no_open_request_a_second_time(
    desk: Desk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full inbox costs the square of its files."""
    read: list[str] = []

    def counted(writer: Writer, name: str) -> Request:
        read.append(name)
        return own_events(writer, name)

    monkeypatch.setattr("tasks.requests.record.own_events", counted)
    requests = [submit(desk, catalogue, samples={"index": [row]}).id for row in range(6)]
    assert sorted(read) == sorted(requests[:-1])


# copies


def test_copies_are_told_once_a_request_that_was_received_is_resolved(desk: Desk, root: Path) -> None:
    received = submit(desk, None)
    Path("data/split/copies.csv").write_text("sample_id,same,alike\ntrain/3.png,1,1\ntrain/9.png,1,1\n")
    (receipt,) = desk.resolve(Catalogue.load())
    assert receipt.request.id == received.id
    assert receipt.copies == Copies(same=("train/9.png",))
    told = receipt.request.latest(facts.Validated)
    assert told is not None
    assert told.copies == 1


def test_copies_are_told_of_one_that_waits_behind_another(desk: Desk, root: Path) -> None:
    Path("data/split/copies.csv").write_text("sample_id,same,alike\ntrain/3.png,0,1\ntrain/9.png,0,1\n")
    catalogue = Catalogue.load()
    submit(desk, catalogue)
    receipt = desk.submit(submission(), "a.json", catalogue, channel="inbox")
    assert receipt.request.state.status == "behind"
    assert receipt.copies == Copies(alike=("train/9.png",))


def test_a_request_without_copies_leaves_the_same_record_as_before(desk: Desk, catalogue: Catalogue) -> None:
    (told,) = (event.text for event in submit(desk, catalogue).events if event.kind == "validated")
    assert "copies" not in told
