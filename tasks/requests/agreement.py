"""Whether the parts of a certificate agree: what its summary says, and what the events that it holds tell.

Who makes a certificate checks this before it is signed, and who verifies one checks it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.core.errors import ExpungeError
from tasks.requests.excerpt import canonical
from tasks.requests.origin import unknown
from tasks.requests.predicate import Erasure, Statement

DECISIONS = frozenset(
    {"approved", "refused", "withdrawn", "held", "released", "extended", "retried", "unkeyed"}
)
"""Kinds of events that are decisions of persons."""

TOLD = ("by", "reason", "due_at")


def check_subject(statement: Statement) -> str:
    """Check that the statement is about the model that the erasure led to."""
    names = [subject.name for subject in statement.subject]
    if names not in (["weights"], ["weights", "file"]):
        raise ExpungeError("the subjects are not the weights and, if it is known, their file")
    if statement.subject[0].digest.sha256 != statement.predicate.model.after.weights:
        raise ExpungeError("the subject is not the model that the erasure led to")
    return "the statement is about the model that the erasure led to"


def check_summary(erasure: Erasure) -> str:
    """Check that every part says what the events tell, as far as their content is told.

    Raises
    ------
    ExpungeError
        Naming the first part that does not.
    """
    count = 0
    for part, said, told in _pairs(erasure):
        count += 1
        if canonical(said) != canonical(told):
            raise ExpungeError(f"{part} is not what the events tell")
    return f"{count} parts are what the events tell"


def _pairs(erasure: Erasure) -> Iterator[tuple[str, Any, Any]]:
    """For each part that events tell of: its name, what it says, and what they tell."""
    events = erasure.ledger.events
    kinds = [event.kind for event in events]
    last = events[-1]
    request, samples = erasure.request, erasure.samples
    yield "ledger", [kinds[0], kinds[-1], kinds.count("purged")], ["received", "purged", 1]
    yield "ledger.head", erasure.ledger.head.model_dump(), {"seq": last.seq, "hash": last.hash}
    yield "request.purged_at", request.purged_at, last.at
    yield "request.extended", request.extended, "extended" in kinds
    if received := _last(erasure, "received"):
        for name in ("requester", "ground", "received_at"):
            yield f"request.{name}", getattr(request, name), received.get(name)
        moved = _last(erasure, "extended") or {}
        yield "request.due_at", request.due_at, moved.get("due_at") or received.get("due_at")
    decided = [event for event in events if event.kind in DECISIONS]
    made = [(each.kind, each.at) for each in erasure.decisions]
    yield "decisions", made, [(event.kind, event.at) for event in decided]
    for decision, event in zip(erasure.decisions, decided, strict=True):
        said = {key: getattr(decision, key) for key in TOLD}
        yield "decisions", said, {key: (event.body or {}).get(key) for key in TOLD}
    if (validated := _last(erasure, "validated")) is not None:
        yield "samples.digests", [dict(each) for each in samples.digests or ()], validated.get("samples", [])
        erased = list(validated.get("already_erased_by") or ())
        yield "samples.already_erased_by", list(samples.already_erased_by), erased
    digests = samples.digests
    yield "samples.count", samples.count, None if digests is None else len(digests)
    looked_at: list[Mapping[str, Any] | None] = [
        event.body for event in events if event.kind in {"audited", "covered"}
    ]
    if all(body is not None for body in looked_at):
        content = {canonical(each) for body in looked_at for each in (body or {}).get("content", ())}
        yield "samples.content", sorted(map(canonical, samples.content or ())), sorted(content)
        held_out = (_last(erasure, "audited") or {}).get("held_out", 0)
        yield "samples.held_out", samples.held_out or 0, held_out
    covered = [event.body for event in events if event.kind == "covered" and event.body is not None]
    yield (
        "samples.covered_by",
        [each.model_dump(mode="json") for each in samples.covered_by],
        [{"batch": body.get("batch"), "samples": body.get("samples", [])} for body in covered],
    )
    if (origin := erasure.model.origin) is not None:
        said = origin.model_dump(mode="json")
        told = unknown(said, erasure.model.before.weights, erasure.model.guarantee)
        yield "model.origin", [said["unknown"], origin.event.seq < last.seq], [told, True]
    numbers = [attempt.number for attempt in erasure.attempts]
    yield "attempts", numbers, list(range(1, len(numbers) + 1))


def _last(erasure: Erasure, kind: str) -> Mapping[str, Any] | None:
    """Content of the last event of a kind; ``None`` if there is none, or it is not told."""
    return next((event.body for event in reversed(erasure.ledger.events) if event.kind == kind), None)
