from __future__ import annotations

from dataclasses import replace

from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.keys import reference
from tasks.requests.request import Recognition, new_id
from tasks.requests.settings import Settings
from tests.requests.conftest import LIFE, Clock, go_on, submit

WEIGHTS = facts.Weights(original="a", result="b")


def audit(verdict: str) -> facts.Audit:
    return facts.Audit(method="none", verdict=verdict, decision="next", why="", weights=WEIGHTS)


def test_an_id_tells_the_day_and_is_drawn(clock: Clock) -> None:
    assert new_id(clock()).startswith("20260501-")
    assert new_id(clock()) != new_id(clock())
    assert new_id(clock(), suffix="0" * 8) == "20260501-00000000"


def test_what_its_batch_has_in_common_is_read_from_the_batch(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue)
    assert request.common(facts.Audit) is None
    with desk.writing() as writer:
        writer.append(facts.Opened(requests=1, samples=1), "b")
        writer.append(LIFE[0], request.id)
        writer.append(LIFE[1], request.id)
        for verdict in ("remembers", "indistinguishable"):
            writer.append(audit(verdict), "b")
        writer.append(audit("of another batch"), "b2")
    shown = desk.show(request.id)
    assert shown.batch == "b"
    assert shown.common(facts.Audit) == audit("indistinguishable")
    assert [each.verdict for each in shown.all_common(facts.Audit)] == ["remembers", "indistinguishable"]
    assert [event.kind for event in shown.events] == ["received", "validated", "batched", "started"]
    (same,) = desk.requests()
    assert same == shown


def test_a_request_that_left_its_batch_has_none(desk: Desk, catalogue: Catalogue) -> None:
    request = go_on(desk, submit(desk, catalogue), LIFE[0], facts.Unbatched(batch="b"))
    assert (request.batch, request.of_batch, str(request.state.status)) == (None, (), "validated")
    assert go_on(desk, request, facts.Batched(batch="b2")).batch == "b2"


def test_what_its_samples_look_like_is_told_once_of_each(desk: Desk, catalogue: Catalogue) -> None:
    first, second = {"pixels": "1", "file": "2"}, {"pixels": "3"}
    request = go_on(
        desk,
        submit(desk, catalogue, samples={"index": [1, 2]}),
        facts.Covered(batch="a", content=(second,)),
        *LIFE[:2],
        facts.Audited(batch="b", content=(first,)),
        facts.Started(batch="b"),
        facts.Audited(batch="b", content=(first, second)),
    )
    assert request.content == (first, second)


def test_a_request_recognises_its_samples_and_no_others(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue, samples={"index": [3, 5]})
    key = desk.keys.load(request.id)
    known = list(catalogue.sources)
    mine = Recognition.of_all(request, key)
    assert mine.among(reversed(known)) == ["train/5.png", "train/3.png"]
    assert mine.digest("train/3.png") == reference(key, "id", "train/3.png")
    assert Recognition.of_all(request, b"0" * 32).among(known) == []
    covered = go_on(desk, request, facts.Covered(batch="a", samples=(mine.digest("train/3.png"),)))
    assert Recognition.of_remaining(covered, key).among(known) == ["train/5.png"]
    assert Recognition.of_all(covered, key).among(known) == ["train/3.png", "train/5.png"]


def test_the_words_for_what_comes_next_are_of_the_status(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue)
    behind = submit(desk, catalogue)
    told = {row.request: desk.next_of(row) for row in desk.rows()}
    assert told[request.id] == "it waits for the next batch"
    assert told[behind.id].startswith(f"it waits for {request.id}, which names the same samples")
    go_on(desk, request, *LIFE)
    assert {desk.next_of(row) for row in desk.rows() if not row.open} == {"nothing"}


def test_who_asks_for_approval_is_told_what_to_approve(desk: Desk, catalogue: Catalogue) -> None:
    request = submit(desk, catalogue).id
    asking = replace(desk, settings=Settings(approval=True))
    (row,) = asking.rows()
    assert asking.next_of(row) == f"a person must decide: expunge approve {request}, or refuse"


def test_a_time_is_shown_as_the_day_where_it_is_counted(desk: Desk) -> None:
    for zone, day in (
        ("UTC", "2026-06-02"),
        ("America/New_York", "2026-06-01"),
        ("Asia/Tokyo", "2026-06-02"),
    ):
        there = replace(desk, settings=Settings(timezone=zone))
        assert there.day("2026-06-02T03:59:59.999999Z") == day
    assert desk.day(None) == ""
