from __future__ import annotations

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tests.requests.conftest import LIFE, go_on, row_of, submit

COURT = {"by": "dpo", "reason": "court case 7"}
OVER = {"by": "dpo", "reason": "settled"}
THREE = ("train/3.png",)


def held(desk: Desk, *requests: str) -> list[bool]:
    rows = {row.request: row.held for row in desk.rows()}
    assert all(desk.show(name).state.held == rows[name] for name in requests)
    return [rows[name] for name in requests]


def test_a_hold_of_a_requester_catches_what_is_there_and_what_comes(desk: Desk, catalogue: Catalogue) -> None:
    before = submit(desk, catalogue, samples={"index": [1]}).id
    other = submit(desk, catalogue, samples={"index": [2]}, requester="crm:9").id
    hold = desk.place_hold(**COURT, requester="crm:4711")
    after = submit(desk, catalogue, samples={"index": [3]}).id
    assert held(desk, before, other, after) == [True, False, True]
    assert [each.request for each in desk.ready()] == [other]
    caught = desk.show(after).latest(facts.Held)
    assert caught == facts.Held(**COURT, standing=hold)
    assert [(each.id, each.placed.requester) for each in desk.holds()] == [(hold, "crm:4711")]
    desk.lift_hold(hold, **OVER)
    assert held(desk, before, other, after) == [False] * 3
    assert desk.holds() == []
    assert not submit(desk, catalogue, samples={"index": [4]}).state.held


def test_a_hold_of_samples_catches_what_names_one_of_them_by_any_name(
    desk: Desk, catalogue: Catalogue
) -> None:
    before = submit(desk, catalogue, samples={"path": ["train.parquet#3"]}).id
    hold = desk.place_hold(**COURT, ids=THREE)
    after = submit(desk, catalogue, samples={"class": ["dog"]}).id
    others = submit(desk, catalogue, samples={"class": ["cat"]}).id
    assert held(desk, before, after, others) == [True, True, False]
    (placed,) = desk.ledger.events(hold)
    assert "train/3.png" not in placed.text
    desk.lift_hold(hold, **OVER)
    assert held(desk, before, after, others) == [False] * 3


def test_the_samples_of_a_standing_hold_are_protected_before_any_request(
    desk: Desk, catalogue: Catalogue
) -> None:
    hold = desk.place_hold(**COURT, ids=THREE)
    assert list(desk.held_samples(catalogue.sources)) == [(hold, set(THREE))]
    desk.lift_hold(hold, **OVER)
    assert list(desk.held_samples(catalogue.sources)) == []
    assert desk.keys.names(hold) is None


def test_the_end_of_a_hold_releases_what_it_alone_held(desk: Desk, catalogue: Catalogue) -> None:
    requester = desk.place_hold(**COURT, requester="crm:4711")
    both = submit(desk, catalogue).id
    samples = desk.place_hold(**COURT, ids=THREE)
    later = submit(desk, catalogue, samples={"id": ["train/3.png", "train/4.png"]}).id
    only_samples = submit(desk, catalogue, samples={"id": ["train/3.png", "train/5.png"]}, requester="a").id
    assert set(desk.show(both).holds) == set(desk.show(later).holds) == {requester, samples}
    desk.lift_hold(requester, **OVER)
    assert held(desk, both, later, only_samples) == [True, True, True]
    assert set(desk.show(both).holds) == {samples}
    assert desk.show(both).latest(facts.Held) == facts.Held(**COURT, standing=samples)
    desk.lift_hold(samples, **OVER)
    assert held(desk, both, later, only_samples) == [False] * 3


def test_a_persons_hold_stays_when_a_standing_one_ends_and_the_reverse(
    desk: Desk, catalogue: Catalogue
) -> None:
    request = submit(desk, catalogue).id
    hold = desk.place_hold(**COURT, requester="crm:4711")
    desk.decide(facts.Held(by="judge", reason="another case"), request)
    desk.lift_hold(hold, **OVER)
    assert held(desk, request) == [True]
    assert set(desk.show(request).holds) == {""}
    again = desk.place_hold(**COURT, requester="crm:4711")
    desk.decide(facts.Released(**OVER), request)
    assert held(desk, request) == [True]
    assert set(desk.show(request).holds) == {again}
    desk.lift_hold(again, **OVER)
    assert held(desk, request) == [False]


def test_a_request_is_not_released_from_a_standing_hold_alone(desk: Desk, catalogue: Catalogue) -> None:
    hold = desk.place_hold(**COURT, requester="crm:4711")
    request = submit(desk, catalogue).id
    with pytest.raises(ExpungeError) as caught:
        desk.decide(facts.Released(**OVER), request)
    assert str(caught.value) == (f"request {request} is held by {hold}; lift that: expunge release {hold}")
    assert held(desk, request) == [True]


def test_a_person_holds_a_request_once(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue).id
    desk.decide(facts.Held(**COURT), request)
    with pytest.raises(ExpungeError, match=rf"^request {request} is on legal hold$"):
        desk.decide(facts.Held(**COURT), request)
    desk.decide(facts.Released(**OVER), request)
    with pytest.raises(ExpungeError, match=rf"^request {request} is not on hold$"):
        desk.decide(facts.Released(**OVER), request)


@pytest.mark.parametrize("count", range(5))
def test_a_request_can_be_held_until_its_purge_begins(desk: Desk, catalogue: Catalogue, count: int) -> None:
    request = go_on(desk, submit(desk, catalogue), *LIFE[:count])
    assert desk.decide(facts.Held(**COURT), request.id).state.held


@pytest.mark.parametrize("last", ["purging", "purged", "failed"])
def test_nothing_can_be_held_once_its_purge_has_begun(desk: Desk, catalogue: Catalogue, last: str) -> None:
    told = LIFE[: 6 if last == "purged" else 5]
    request = go_on(
        desk, submit(desk, catalogue), *told, *([facts.Failed(batch="b")] if last == "failed" else [])
    )
    before = desk.ledger.head()
    message = rf"^request {request.id} is {last}; 'held' can happen only to one that is received, "
    if last == "failed":
        message = rf"^request {request.id} failed after its purge had begun; 'held' comes too late: "
    with pytest.raises(ExpungeError, match=message):
        desk.decide(facts.Held(**COURT), request.id)
    assert desk.ledger.head() == before
    hold = desk.place_hold(**COURT, requester="crm:4711")  # what comes later is held all the same
    assert held(desk, request.id) == [False]
    later = submit(desk, catalogue, samples={"index": [5]})
    assert set(later.holds) == {hold}


def test_what_failed_before_its_purge_can_be_held_and_waits(desk: Desk, catalogue: Catalogue) -> None:
    request = go_on(desk, submit(desk, catalogue), *LIFE[:4], facts.Failed(batch="b"))
    assert desk.decide(facts.Held(**COURT), request.id).state.held
    with pytest.raises(ExpungeError, match="is on legal hold; 'retried' waits for its release"):
        desk.decide(facts.Retried(by="me"), request.id)


def test_where_the_key_of_a_hold_is_lost_what_comes_is_held_and_nothing_is_purged(
    desk: Desk, catalogue: Catalogue
) -> None:
    hold = desk.place_hold(**COURT, ids=THREE)
    desk.keys.destroy(hold)
    request = submit(desk, catalogue, samples={"index": [7]})
    assert set(request.holds) == {hold}
    assert desk.lost_holds() == [hold]
    assert next(iter(desk.held_samples(catalogue.sources))) == (hold, set(catalogue.sources))
    desk.lift_hold(hold, **OVER)
    assert held(desk, request.id) == [False]
    assert list(desk.held_samples(catalogue.sources)) == []


def test_where_only_its_key_is_lost_a_hold_protects_what_the_names_beside_it_say(
    desk: Desk, catalogue: Catalogue
) -> None:
    hold = desk.place_hold(**COURT, ids=THREE)
    request = submit(desk, catalogue, samples={"index": [7]})
    desk.decide(facts.Held(**COURT), request.id)
    (seven,) = dict(desk.held_samples(catalogue.sources))[request.id]
    for name in (hold, request.id):
        (desk.keys.folder / f"{name}.key").unlink()
    assert desk.lost_holds() == []
    assert dict(desk.held_samples(catalogue.sources)) == {hold: set(THREE), request.id: {seven}}
    assert not submit(desk, catalogue, samples={"index": [8]}).holds


def test_a_damaged_key_of_a_hold_is_no_hindrance_to_intake(desk: Desk, catalogue: Catalogue) -> None:
    hold = desk.place_hold(**COURT, ids=THREE)
    (desk.keys.folder / f"{hold}.key").write_bytes(b"short")
    desk.keys.forget_names(hold)
    assert set(submit(desk, catalogue).holds) == {hold}


def test_a_request_that_waits_behind_another_is_held_too(desk: Desk, catalogue: Catalogue) -> None:
    first = submit(desk, catalogue, requester="a")
    hold = desk.place_hold(**COURT, requester="b")
    behind = submit(desk, catalogue, requester="b")
    assert [event.kind for event in behind.events] == ["received", "validated", "behind", "held"]
    assert {name for name, _ in desk.held_samples(catalogue.sources)} == {behind.id}
    desk.decide(facts.Withdrawn(by="me", reason="asked"), first.id)
    assert (row_of(desk, behind).status, row_of(desk, behind).held) == ("validated", True)
    desk.lift_hold(hold, **OVER)
    assert [each.request for each in desk.ready()] == [behind.id]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reason": " \n"}, "a standing hold needs a reason"),
        ({"requester": None}, "a standing hold needs a reason, and a requester's reference or samples"),
        ({"ids": THREE}, "a standing hold needs a reason, and a requester's reference or samples"),
    ],
)
def test_a_standing_hold_needs_a_reason_and_one_thing_to_hold(
    desk: Desk, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ExpungeError, match=message):
        desk.place_hold(**{**COURT, "requester": "crm:1", **given})  # type: ignore[arg-type]
    assert desk.ledger.events() == []
    assert not desk.keys.folder.exists()


def test_what_is_no_standing_hold_cannot_be_lifted(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue).id
    hold = desk.place_hold(**COURT, requester="crm:4711")
    before = desk.ledger.head()
    for name in (request, "hold-20260501-00000000"):
        with pytest.raises(ExpungeError, match=rf"^'{name}' is no standing hold; expunge holds lists those"):
            desk.lift_hold(name, **OVER)
    with pytest.raises(ExpungeError, match=rf"^{hold}: give a reason"):
        desk.lift_hold(hold, by="dpo", reason="  ")
    assert desk.ledger.head() == before
    desk.lift_hold(hold, **OVER)
    with pytest.raises(ExpungeError, match="is no standing hold"):
        desk.lift_hold(hold, **OVER)
