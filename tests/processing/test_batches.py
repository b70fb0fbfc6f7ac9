from __future__ import annotations

import pytest

from tasks.core.errors import ExpungeError
from tasks.processing.batches import choose, in_progress, open_batch
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.request import Request
from tasks.requests.settings import Settings
from tests.requests.conftest import Clock, catalogue, clock, desk, root, submission

ATTEMPT = facts.Attempt(attempt=1, method="none", base=facts.Base(weights="w"))

__all__ = ["catalogue", "clock", "desk", "root"]


def requested(desk: Desk, catalogue: Catalogue, *rows: int, at: str = "2026-05-01T09:30:00Z") -> Request:
    content = submission(samples={"id": [f"train/{row}.png" for row in rows]}, received_at=at)
    return desk.submit(content, "r.json", catalogue, channel="cli").request


def test_a_batch_begins_with_enough_samples_or_an_old_request(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    settings = Settings(batch_size=3, batch_hours=24)
    first = requested(desk, catalogue, 1, 2)
    assert choose(desk.ready(), settings, clock()) == []
    second = requested(desk, catalogue, 3)
    assert [row.request for row in choose(desk.ready(), settings, clock())] == [first.id, second.id]
    alone = desk.rows(request=first.id)
    clock.forward(hours=21)
    assert choose(alone, settings, clock()) == []
    clock.forward(hours=1)
    assert choose(alone, settings, clock()) == alone


def test_a_request_at_risk_does_not_wait_for_company(desk: Desk, catalogue: Catalogue, clock: Clock) -> None:
    settings = Settings(batch_size=100, batch_hours=8760, at_risk_days=7)
    requested(desk, catalogue, 1)
    clock.forward(days=20)
    assert choose(desk.ready(), settings, clock()) == []
    clock.forward(days=5)
    assert len(choose(desk.ready(), settings, clock())) == 1


def test_the_limit_holds_back_the_youngest_but_never_all(
    desk: Desk, catalogue: Catalogue, clock: Clock
) -> None:
    young = requested(desk, catalogue, 1, at="2026-05-01T11:00:00Z")
    old = requested(desk, catalogue, 2, 3, at="2026-05-01T10:00:00Z")
    assert [row.request for row in choose(desk.ready(), Settings(batch_size=1, batch_limit=2), clock())] == [
        old.id
    ]
    assert [row.request for row in choose(desk.ready(), Settings(batch_size=1, batch_limit=1), clock())] == [
        old.id
    ]
    assert len(choose(desk.ready(), Settings(batch_size=1, batch_limit=3), clock())) == 2
    assert young.id != old.id


def test_requests_of_a_batch_go_on_together_and_those_elsewhere_apart(
    desk: Desk, catalogue: Catalogue
) -> None:
    both = [requested(desk, catalogue, row) for row in (1, 2)]
    batch = open_batch(desk, [each.id for each in both])
    assert desk.ready() == []
    assert [found.names for found in in_progress(desk)] == [batch.names]
    batch.record(desk, ATTEMPT, facts.Started)
    desk.decide(facts.Held(by="me", reason="a lawsuit"), both[0].id)
    batch.record(desk, facts.Failure(step="running"), facts.Failed)
    desk.decide(facts.Retried(by="me"), both[1].id)
    found = {tuple(group.names): str(group.status) for group in in_progress(desk)}
    assert found == {(both[0].id,): "failed", (both[1].id,): "running"}


def test_what_another_batch_erased_no_longer_remains(desk: Desk, catalogue: Catalogue) -> None:
    request = requested(desk, catalogue, 1, 2)
    assert len(request.remaining) == 2
    with desk.ledger.writing() as writer:
        writer.append(facts.Covered(batch="b", samples=(min(request.remaining),)), request.id)
    after = desk.show(request.id)
    assert after.remaining == {max(request.remaining)}
    assert after.count == 2


def test_all_or_none_of_a_batch_move(desk: Desk, catalogue: Catalogue) -> None:
    first, second = (requested(desk, catalogue, row) for row in (1, 2))
    batch = open_batch(desk, [first.id])
    stale = type(batch)(batch.id, (*batch.requests, second))
    before = desk.ledger.head()
    with pytest.raises(ExpungeError, match="'started' can happen only"):
        stale.record(desk, ATTEMPT, facts.Started)
    assert str(desk.show(first.id).state.status) == "batched"
    assert desk.ledger.head() == before  # nor is the batch's own event kept
