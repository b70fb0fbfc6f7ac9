from __future__ import annotations

import json
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from tasks.requests import events as facts
from tasks.requests.chain import Event, canonical
from tasks.requests.events import KINDS, TRANSITIONS, Code, Fact, OfBatch, described
from tasks.requests.events_page import page
from tests.requests.filling import audit

DOCS = Path(__file__).parents[2] / "docs/events.md"


def example(kind: Any, *, full: bool) -> Any:
    """A value of a field's type, as small or as large as it can be."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return example(next(each for each in arguments if each is not type(None)), full=full)
    if origin is Literal:
        return arguments[-1]
    if hasattr(kind, "__metadata__"):
        return example(kind.__origin__, full=full)
    if origin is tuple:
        return (example(arguments[0], full=full),) * 2 if full else ()
    if origin is Mapping:
        return {"ä": example(arguments[1], full=full)} if full else {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return made(kind, full=full)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    return {str: "text ä\0", int: 7, float: 0.1, bool: True, Any: {"a": [None, 1.5, "x"]}}[kind]


def made(model: type[BaseModel], *, full: bool) -> Any:
    fields = {
        name: example(field.annotation, full=full)
        for name, field in model.model_fields.items()
        if name != "told_here" and (full or field.is_required())
    }
    return model.model_validate(fields)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_event_comes_back_as_it_was_told(kind: str, full: bool) -> None:
    fact = made(KINDS[kind], full=full)
    body = json.loads(canonical(fact.body()))
    assert facts.read(kind, body) == fact
    assert facts.read(kind, {**body, "of_a_later_version": 1}) == fact
    assert Event(1, "", kind, "r", canonical(fact.body()), "").fact == fact
    assert "\n" not in fact.told()
    assert all(isinstance(value, str) for value in fact.links().values())
    if full:
        assert set(body) == set(KINDS[kind].model_fields) - {"told_here"}


def test_what_is_not_given_is_not_kept() -> None:
    assert facts.Received().body() == {}
    assert facts.Approved(by="dpo", reason=None).body() == {"by": "dpo"}
    assert facts.Audited(batch="b").body() == {"batch": "b"}
    assert facts.Opened(requests=1, samples=2).body() == {"requests": 1, "samples": 2}


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        facts.Approved(by="dpo").by = "someone"  # type: ignore[misc]


ERROR = "ValueError: train/3.png of crm:4711 cannot be decoded"


@pytest.mark.parametrize("kind", KINDS)
def test_no_event_holds_the_text_of_an_error(kind: str) -> None:
    given = json.loads(canonical(made(KINDS[kind], full=True).body()))
    for name in ("error", "message", "traceback", "exception", "detail"):
        given[name] = ERROR
    assert ERROR not in canonical(facts.read(kind, given).body())


def test_a_failure_tells_a_code_and_the_step_alone() -> None:
    assert set(facts.Failed.model_fields) - {"told_here"} == {"batch", "code"}
    assert set(facts.Failure.model_fields) == {"step", "code"}
    with pytest.raises(ValueError, match="code"):
        facts.Failed.model_validate({"batch": "b", "code": ERROR})
    assert facts.Failed(batch="b", code=Code.STORE).told() == "b: store"


def test_an_event_of_a_later_version_is_read_and_told_as_its_kind() -> None:
    later = Event(1, "", "anonymised", "r1", '{"by":"dpo","first":7}', "").sealed()
    assert later.fact == facts.Unknown()
    assert (later.fact.told(), later.fact.links()) == ("", {})
    assert later.raw == {"by": "dpo", "first": 7}
    assert "anonymised" not in TRANSITIONS


def test_figures_that_a_batch_has_in_common_are_told_of_the_batch_alone() -> None:
    own = {kind: set(fact.model_fields) for kind, fact in KINDS.items() if issubclass(fact, OfBatch)}
    assert own["audited"] == {"batch", "told_here", "content", "held_out"}
    assert own["promoted"] == own["started"] == own["purged"] == {"batch", "told_here"}
    assert facts.Audited(batch="b", told_here=audit().body()).body() == {"batch": "b"}


WEIGHTS = {"original": "1" * 64, "result": "2" * 64}
OLD: list[tuple[str, dict[str, Any], Fact]] = [
    (
        "started",
        {"attempt": 2, "base": {"version": "1", "weights": "1" * 64}, "batch": "b", "commit": "c" * 40,
         "flow_run": None, "lost": 0, "method": "retrain"},
        facts.Attempt(
            attempt=2, method="retrain", base=facts.Base(version="1", weights="1" * 64), commit="c" * 40
        ),
    ),
    (
        "audited",
        {"batch": "b", "content": [{"pixels": "3" * 64}], "decision": "promote", "why": "retrained",
         "environment": {"dvc": "3"}, "figures": {"audit/auc": 0.5}, "manifest": {"samples.csv": "4" * 64},
         "method": "none", "params": {"split": {"resize": None}}, "pipeline": "5" * 32,
         "placements": [0.0, 1.0], "reason": "few", "runs": {"audit": "6" * 32}, "text": "no verdict",
         "verdict": "inconclusive", "weights": WEIGHTS},
        facts.Audit(
            method="none", verdict="inconclusive", text="no verdict", reason="few", decision="promote",
            why="retrained", weights=facts.Weights.model_validate(WEIGHTS), figures={"audit/auc": 0.5},
            runs={"audit": "6" * 32}, pipeline="5" * 32, params={"split": {"resize": None}},
            manifest={"samples.csv": "4" * 64}, environment={"dvc": "3"},
        ),
    ),
    (
        "promoted",
        {"batch": "b", "commit": "c" * 40, "content": [], "guarantee": "exact", "lock": "7" * 64,
         "method": "retrain", "version": "2", "weights": "2" * 64},
        facts.Promotion(
            method="retrain", guarantee="exact", version="2", weights="2" * 64, commit="c" * 40, lock="7" * 64
        ),
    ),
    (
        "purged",
        {"batch": "b",
         "checklist": [{"how": "by id", "item": "2 originals", "result": "deleted", "store": "s"}],
         "commit": "c" * 40, "manifest": {"samples.csv": "4" * 64}},
        facts.Purge(
            checklist=(facts.ChecklistLine(store="s", item="2 originals", result="deleted", how="by id"),),
            commit="c" * 40, manifest={"samples.csv": "4" * 64},
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "common"), OLD)
def test_what_the_first_release_told_of_a_batch_in_each_request_is_read(
    kind: str, body: dict[str, Any], common: Fact
) -> None:
    fact = Event(1, "", kind, "r", canonical(body), "").fact
    assert isinstance(fact, OfBatch)
    assert fact.batch == "b"
    assert fact.of_batch() == common
    assert fact.told() == common.told()
    assert fact.links() == {"batch": "b", **common.links()}


def test_other_events_of_the_first_release_are_read() -> None:
    received = facts.read("received", {"channel": "prefect", "flow_run": "8" * 36, "due_at": None})
    assert received == facts.Received(channel="prefect", flow_run=facts.FlowRun(id="8" * 36))
    assert facts.read("received", {"channel": "cli", "flow_run": None}) == facts.Received(channel="cli")
    failed = facts.read("failed", {"batch": "b", "error": ERROR})
    assert failed == facts.Failed(batch="b")
    assert ERROR not in failed.told()
    batched = facts.read("batched", {"batch": "b", "count": 2, "requests": ["r1", "r2"]})
    assert (batched, batched.links()) == (facts.Batched(batch="b"), {"batch": "b"})
    closed = facts.read("closed", {"batch": "b", "certificate": "9" * 64})
    assert closed == facts.Closed(batch="b", certificate="9" * 64)


def test_the_page_of_events_is_what_the_classes_tell() -> None:
    assert DOCS.read_text(encoding="utf-8") == page(), "python -m tasks.requests.events > docs/events.md"


def test_every_event_has_a_meaning_of_one_sentence() -> None:
    for kind, meaning, _ in described():
        assert meaning.endswith("."), kind
        assert meaning[0].isupper(), kind
