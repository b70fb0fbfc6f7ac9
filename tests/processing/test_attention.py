from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.params import Params, load
from tasks.erasure.again import REST
from tasks.erasure.checklist import Outcome
from tasks.processing import checkout
from tasks.processing.attention import what_needs_a_person
from tasks.requests import events as facts
from tasks.requests import pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.settings import Settings
from tests.requests.conftest import LIFE, Clock, catalogue, clock, desk, go_on, root, submit

__all__ = ["catalogue", "clock", "desk", "root"]

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def params(root: Path) -> Params:
    shutil.copy(PROJECT / "params.yaml", root)
    (root / "data/requests").mkdir()
    shutil.copy(PROJECT / "data/requests/erased.txt", root / "data/requests")
    return load()


def told(desk: Desk, params: Params) -> list[str]:
    return what_needs_a_person(desk, params, Path.cwd(), os.environ, reconcile=False)


def test_nothing_needs_a_person_while_all_goes_its_way(
    desk: Desk, catalogue: Catalogue, params: Params
) -> None:
    assert told(desk, params) == []
    submit(desk, catalogue)
    submit(desk, catalogue)
    go_on(desk, submit(desk, catalogue, samples={"index": [5]}), *LIFE[:2])
    assert told(desk, params) == []


def test_what_is_overdue_is_told_also_on_hold(
    desk: Desk, catalogue: Catalogue, params: Params, clock: Clock
) -> None:
    request = submit(desk, catalogue, due_at="2026-05-02T00:00:00Z").id
    held = submit(desk, catalogue, samples={"index": [1]}, due_at="2026-05-03T00:00:00Z").id
    desk.decide(facts.Held(by="dpo", reason="court"), held)
    clock.forward(days=3)
    assert told(desk, params) == [
        f"request {request} is overdue since 2026-05-02",
        f"request {held} is overdue since 2026-05-03, and is on legal hold",
    ]


def test_the_day_that_is_told_is_that_of_the_operator(
    desk: Desk, catalogue: Catalogue, params: Params, clock: Clock
) -> None:
    there = replace(desk, settings=Settings(timezone="America/New_York"))
    request = submit(there, catalogue).id
    clock.forward(days=32)
    assert told(there, params) == [f"request {request} is overdue since 2026-06-01"]


def test_the_first_is_overdue_with_the_one_behind_it(
    desk: Desk, catalogue: Catalogue, params: Params, clock: Clock
) -> None:
    first = submit(desk, catalogue).id
    behind = submit(desk, catalogue, due_at="2026-05-02T00:00:00Z").id
    clock.forward(days=2)
    assert {line.split()[1] for line in told(desk, params)} == {first, behind}


def test_a_failure_is_told_from_the_first_minute(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    request = go_on(desk, submit(desk, catalogue), *LIFE[:2], facts.Failed(batch="b")).id
    assert told(desk, params) == [
        f"request {request} failed: expunge show {request} tells why; then expunge retry, refuse or withdraw"
    ]


def test_approval_is_asked_for_where_the_settings_want_it(
    desk: Desk, catalogue: Catalogue, params: Params
) -> None:
    settings = desk.settings.model_copy(update={"approval": True})
    gated = Desk(desk.ledger, desk.keys, settings, desk.clock)
    request, held = (submit(gated, catalogue, samples={"index": [row]}).id for row in (1, 2))
    gated.decide(facts.Held(by="dpo", reason="court"), held)
    assert told(gated, params) == [f"request {request} waits for approval: expunge approve {request}"]
    gated.decide(facts.Approved(by="dpo"), request)
    assert told(gated, params) == []


def test_what_cannot_be_resolved_is_told(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    request = submit(desk, None).id
    name = f"request {request}"
    assert told(desk, params) == []  # the next run resolves it
    Path("data/split/samples.csv").write_text("damaged")
    assert told(desk, params) == [
        f"{name} is received and not resolved: make data/split readable (dvc repro split), then process"
    ]
    pending.drop(request)
    (line,) = told(desk, params)
    assert line == (
        f"{name} is received, and what it named is lost: have it submitted again, "
        f"then expunge refuse {request}"
    )


def test_a_lost_key_is_told_of_a_request_and_of_a_hold(
    desk: Desk, catalogue: Catalogue, params: Params
) -> None:
    request = submit(desk, catalogue).id
    hold = desk.place_hold(by="dpo", reason="court", ids=["train/7.png"])
    desk.place_hold(by="dpo", reason="court", requester="crm:9")
    for name in (request, hold):
        desk.keys.destroy(name)
    assert told(desk, params) == [
        (
            f"request {request}: its key is lost; restore it from the backup of the keys, "
            f"or: expunge refuse {request}"
        ),
        (
            f"{hold}: its key is lost, so nobody can tell what this hold protects, and no purge goes on; "
            f"restore it from the backup of the keys, or: expunge release {hold}"
        ),
    ]


def test_another_checkout_and_a_lost_list_are_told(desk: Desk, params: Params, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    checkout.settle(desk, tmp_path / "other", by="me")
    (line,) = told(desk, params)
    assert "are carried out in another checkout" in line
    checkout.settle(desk, Path.cwd(), by="me", reason="moved")
    assert told(desk, params) == []
    Path("data/requests/erased.txt").unlink()
    (line,) = told(desk, params)
    assert "erased.txt" in line
    off = params.model_copy(update={"split": params.split.model_copy(update={"erased": None})})
    (line,) = told(desk, off)
    assert "split.erased is null" in line
    checkout.settle(desk, tmp_path / "other", by="me", reason="back")
    elsewhere, lost = told(desk, params)  # one hides no other
    assert "are carried out in another checkout" in elsewhere
    assert "erased.txt" in lost


def line(store: str, outcome: Outcome) -> facts.ChecklistLine:
    return facts.ChecklistLine(store=store, scope="all of it", outcome=outcome)


def test_what_purges_could_not_search_or_left_is_told_once_until_a_search_finds_it_mended(
    desk: Desk, catalogue: Catalogue, params: Params
) -> None:
    remote, cache = line("DVC remote old", Outcome.NOT_SEARCHED), line("DVC cache", Outcome.LEFT_BEHIND)
    theirs, gone = line("workspace", Outcome.KEPT_REPORTED), line("DVC cache", Outcome.DELETED)

    def purged(batch: str, *lines: facts.ChecklistLine) -> None:
        with desk.writing() as writer:
            writer.append(facts.Purge(checklist=lines), batch)

    requests = []
    for row, batch in ((1, "batch-1"), (2, "batch-2")):
        life = (type(fact).model_validate({"batch": batch}) for fact in LIFE)
        requests.append(go_on(desk, submit(desk, catalogue, samples={"index": [row]}), *life).id)
    purged("batch-1", remote, theirs)
    purged("batch-2", remote, cache)
    shows = f"expunge verify erasure {requests[1]} shows what, by name; mend it, then expunge purge run"
    says = {"DVC remote old": "is not searched, says the purge of 2 batch(es)"}
    says["DVC cache"] = "still holds what had to be deleted, says the purge of 1 batch(es)"
    assert told(desk, params) == [
        f"{store} (all of it) {what}: {shows} {requests[1]}" for store, what in says.items()
    ]
    purged("batch-2", gone, line(REST, Outcome.NOT_APPLICABLE))  # one store was searched alone
    assert ["of 2 batch(es)" in each for each in told(desk, params)] == [True]
    purged("batch-2", gone, theirs)
    (left,) = told(desk, params)
    assert left.endswith(f"expunge purge run {requests[0]}")
    desk.destroy_key(requests[0], by="me", reason="nobody can search for it any more")
    assert told(desk, params) == []
