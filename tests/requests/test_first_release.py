"""A ledger such as the first release wrote: what a batch has in common stands in each request's events."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.pool import NullPool

from tasks.requests import events as facts
from tasks.requests import trace
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import check_chain
from tasks.requests.desk import Desk
from tasks.requests.ledger import Ledger
from tasks.requests.production import in_production
from tasks.requests.summary import summarise
from tests.requests.conftest import START, Clock, submit
from tests.requests.filling import Told, write

FIRST, SECOND, TWICE, REFUSED = (f"20260501-{number:08x}" for number in range(4))
BATCH = "batch-20260501-0000000a"
FLOW = "0f7a3c1e-5d0b-4d5c-8a52-6a4f3d1f0001"
W1, W2, W3 = ("1" * 64, "2" * 64, "3" * 64)
COMMIT = "c" * 40


def received(number: int, **more: Any) -> dict[str, Any]:
    return {
        "channel": "cli", "due_at": "2026-06-01T09:30:00.000000Z", "ground": "consent-withdrawn",
        "received_at": "2026-05-01T09:30:00.000000Z", "requester": f"crm:{number}",
    } | more  # fmt: skip


def started(attempt: int, method: str) -> dict[str, Any]:
    return {
        "attempt": attempt, "base": {"version": "1", "weights": W1}, "batch": BATCH, "commit": COMMIT,
        "flow_run": {"id": FLOW, "name": "busy-bee"}, "lost": 0, "method": method,
    }  # fmt: skip


def audited(method: str, decision: str, result: str) -> dict[str, Any]:
    return {
        "batch": BATCH, "content": [{"file": "f" * 64, "pixels": "e" * 64}], "decision": decision,
        "environment": {"dvc": "3.67.1"}, "figures": {"audit/auc": 0.5, "audit/auc/high": 0.7},
        "manifest": {"samples.csv": "4" * 64}, "method": method, "params": {"split": {"resize": None}},
        "pipeline": "5" * 32, "placements": [1.0, 0.0], "reason": "Below 20 samples.",
        "runs": {"audit": f"{method}-audit"}, "text": "no verdict", "verdict": "inconclusive",
        "weights": {"original": W1, "result": result}, "why": "because",
    }  # fmt: skip


def promoted() -> dict[str, Any]:
    return {
        "batch": BATCH, "commit": "d" * 40, "content": [], "guarantee": "exact", "lock": "7" * 64,
        "method": "retrain", "version": "2", "weights": W3,
    }  # fmt: skip


def purged() -> dict[str, Any]:
    line = {"how": "by id", "item": "2 originals", "result": "deleted", "store": "source"}
    return {"batch": BATCH, "checklist": [line], "commit": "a" * 40, "manifest": {"samples.csv": "6" * 64}}


def told() -> list[Told]:
    samples = [{"id": f"{number:064x}", "path": f"{number + 9:064x}"} for number in range(2)]
    entries: list[Told] = []
    for number, name in enumerate((FIRST, SECOND)):
        flow = {"flow_run": FLOW} if number else {}
        entries.append(("received", name, received(number, **flow)))
        entries.append(("validated", name, {"already_erased_by": [], "samples": samples[: number + 1]}))
    entries.append(("received", TWICE, received(0)))
    entries.append(("duplicate", TWICE, {"first": FIRST, "already_erased_by": []}))
    entries.append(("received", REFUSED, received(3)))
    entries.append(
        ("rejected", REFUSED, {"problems": [{"line": None, "what": "is no class", "where": "class"}]})
    )
    entries.append(("adopted", None, {"commit": COMMIT, "version": "1", "weights": W1}))
    both = [
        ("batched", {"batch": BATCH, "count": 3, "requests": [FIRST, SECOND]}),
        ("started", started(1, "none")),
        ("audited", audited("none", "exact", W2)),
        ("failed", {"batch": BATCH, "error": "train/3.png cannot be decoded", "step": "audited"}),
        ("retried", {"by": "process-requests"}),
        ("started", started(2, "retrain")),
        ("audited", audited("retrain", "promote", W3)),
        ("promoted", promoted()),
        ("purged", purged()),
        ("held", {"by": "dpo", "reason": "too late, which the first release allowed"}),
        ("closed", {"batch": BATCH, "certificate": "9" * 64}),
    ]
    return [*entries, *((kind, name, body) for kind, body in both for name in (FIRST, SECOND))]


@pytest.fixture
def before(root: Path, url: str, clock: Clock, desk: Desk) -> Desk:
    """A desk with a ledger of the first release, without what later versions keep beside the events."""
    ledger = Ledger(url, clock)
    write(ledger, url, told(), START)
    if ledger.name.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            for thing in (
                "TABLE expunge_standing", "TABLE expunge_standing_upto", "INDEX expunge_events_kind",
            ):  # fmt: skip
                connection.execute(f"DROP {thing}")
            connection.commit()
    clock.forward(days=1)
    return Desk(ledger, desk.keys, desk.settings, clock)


def test_it_verifies(before: Desk) -> None:
    head = before.check()
    assert (head.seq, head) == (len(told()), before.ledger.head())
    assert before.ledger.standing_differs() == []
    assert check_chain(before.ledger.events()) == head


def test_it_is_listed(before: Desk) -> None:
    rows = {row.request: row for row in before.rows()}
    assert [(str(rows[name].status), rows[name].batch, rows[name].first) for name in rows] == [
        ("closed", BATCH, None),
        ("closed", BATCH, None),
        ("duplicate", None, FIRST),
        ("rejected", None, None),
    ]
    assert [rows[name].samples for name in (FIRST, SECOND)] == [1, 2]
    assert before.rows(only_open=True) == []


def test_it_is_shown(before: Desk) -> None:
    request = before.show(SECOND)
    assert str(request.state.status) == "closed"
    assert request.received.flow_run == facts.FlowRun(id=FLOW)
    attempts = [(each.attempt, each.method) for each in request.all_common(facts.Attempt)]
    assert attempts == [(1, "none"), (2, "retrain")]
    attempt = request.common(facts.Attempt)
    assert attempt is not None
    assert (attempt.base, attempt.flow_run) == (
        facts.Base(version="1", weights=W1),
        facts.FlowRun(id=FLOW, name="busy-bee"),
    )
    audit = request.common(facts.Audit)
    assert audit is not None
    assert (audit.decision, audit.weights.result) == ("promote", W3)
    purge = request.common(facts.Purge)
    assert purge is not None
    assert [each.store for each in purge.checklist] == ["source"]
    assert request.content == ({"file": "f" * 64, "pixels": "e" * 64},)
    assert before.show(REFUSED).problems[0].what == "is no class"
    assert "png" not in "".join(event.fact.told() for event in request.events)


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        (trace.by_model("2"), [FIRST, SECOND]),
        (trace.by_model("1"), [FIRST, SECOND]),
        (trace.by_model(W3[:12]), [FIRST, SECOND]),
        (trace.by_model(W2), [FIRST, SECOND]),
        (trace.by_commit(COMMIT[:7], Path()), [FIRST, SECOND]),
        (trace.by_commit("aaaaaaa", Path()), [FIRST, SECOND]),
        (trace.by_run("none-audit", Path()), [FIRST, SECOND]),
        (trace.by_run("5" * 32, Path()), [FIRST, SECOND]),
    ],
)
def test_it_is_traced_back(before: Desk, matches: trace.Matches, expected: list[str]) -> None:
    assert [request.id for request in trace.requests_of(before, matches, "it")] == expected


def test_it_is_traced_with_every_name_by_which_it_is_found(before: Desk, root: Path) -> None:
    steps = {step.event: step for step in trace.trace(before.show(FIRST), root)}
    assert steps["started"].ids == {
        "batch": BATCH, "commit": COMMIT, "base version": "1", "base weights": W1, "Prefect flow run": FLOW,
    }  # fmt: skip
    assert steps["audited"].ids["weights result"] == W3
    assert steps["audited"].what.startswith("retrain: inconclusive; audit/auc 0.500")
    assert steps["promoted"].ids == {
        "batch": BATCH, "commit": "d" * 40, "SHA-256 of dvc.lock": "7" * 64, "version": "2", "weights": W3,
    }  # fmt: skip
    assert steps["purged"].what == "1 lines in the checklist"
    assert steps["closed"].ids == {"batch": BATCH, "certificate": "9" * 64}
    assert [step.event for step in trace.trace(before.show(FIRST), root)] == [
        kind for kind, name, _ in told() if name == FIRST
    ]


def test_it_is_summed_up(before: Desk, clock: Clock) -> None:
    found = summarise(before, clock())
    assert found["requests"] == 4
    assert found["samples"] == 3
    assert found["by status"] == {"closed": 2, "duplicate": 1, "rejected": 1}
    assert found["by method"] == {"retrain": 2}
    assert found["by guarantee"] == {"exact": 2}
    assert found["by verdict"] == {"inconclusive": 2}
    assert found["closed in time"] == 2


def test_the_model_in_production_is_read_and_a_later_one_follows_it(before: Desk) -> None:
    assert in_production(before.ledger) == facts.Base(version="2", weights=W3)
    before.record(facts.RolledBack(by="me", reason="worse", version="1", weights=W1))
    assert in_production(before.ledger) == facts.Base(version="1", weights=W1)
    promotion = facts.Promotion(method="none", guarantee="approximate", version="3", weights=W2)
    before.record(promotion, "batch-20260502-0000000b")
    assert in_production(before.ledger) == facts.Base(version="3", weights=W2)


def test_requests_of_today_follow_in_the_same_chain(before: Desk, catalogue: Catalogue, url: str) -> None:
    request = submit(before, catalogue)
    assert str(request.state.status) == "validated"
    assert before.check().seq == len(told()) + 2
    assert before.ledger.standing_differs() == []
    engine = create_engine(url, poolclass=NullPool)
    assert [index["name"] for index in inspect(engine).get_indexes("expunge_events")].count(
        "expunge_events_kind"
    ) == 1


def test_what_the_first_release_refused_after_promotion_does_not_stop_the_rest(
    root: Path, url: str, clock: Clock, desk: Desk
) -> None:
    ledger = Ledger(url, clock)
    entries = [entry for entry in told() if entry[1] in {FIRST, None}]
    at = next(place for place, (kind, _, _) in enumerate(entries) if kind == "purged")
    failed: list[Told] = [
        ("failed", FIRST, {"batch": BATCH, "error": "no space"}),
        ("refused", FIRST, {"by": "dpo", "reason": "tired of it"}),
    ]
    write(ledger, url, [*entries[:at], *failed], START)
    assert [str(row.status) for row in ledger.rows()] == ["refused"]
    old = Desk(ledger, desk.keys, desk.settings, clock)
    assert str(old.show(FIRST).state.status) == "refused"
    assert ledger.standing_differs() == []
