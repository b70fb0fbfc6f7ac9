"""Models that were not trained here: what a certificate says of them, and for how long."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.requests import events as facts
from tasks.requests.certificate import build, render, seal
from tasks.requests.chain import Head
from tasks.requests.events import EXACT, NOTHING_LEFT
from tasks.requests.excerpt import canonical
from tasks.requests.ledger import Ledger
from tasks.requests.predicate import Statement
from tasks.requests.production import origin_of
from tasks.requests.verification import verify
from tests.requests.certified import BEFORE, FACTS, KEY, OLD, PUBLIC, as_file, chained

ADOPTED: dict[str, Any] = {
    "weights": BEFORE, "file": "f" * 64, "adopted_at": "2026-04-30T08:00:00.000000Z", "by": "ada",
    "trained_on": "list", "samples": 90, "of": 100, "val": 3, "test": 0, "note": "as in our paper",
    "event": {"seq": 1, "hash": "e" * 64},
}  # fmt: skip


@pytest.mark.parametrize(
    ("guarantee", "before", "is_said"),
    [
        ("exact", BEFORE, "started from is a model .* trained from scratch .* none of this holds for it"),
        ("approximate", OLD, "was made, by approximate methods, of a model .* all of this holds for it, too"),
        ("covered", BEFORE, "The model was not changed: all of this holds"),
    ],
)
def test_of_weights_that_were_not_trained_here_it_says_what_is_not_known(
    guarantee: str, before: str, is_said: str
) -> None:
    made = build(
        dataclasses.replace(FACTS, guarantee=guarantee, base_weights=before, origin=ADOPTED), chained()
    )
    origin = made.as_json()["predicate"]["model"]["origin"]
    assert {name: value for name, value in origin.items() if name != "unknown"} == ADOPTED
    assert re.search(
        "adopted on 2026-04-30 from a file with SHA-256 f{64}. ada states that it was trained on 90 of the "
        "100 training samples that the data set had then and on 3 validation samples; that was not verified",
        origin["unknown"],
    )
    assert re.search(is_said, origin["unknown"])
    page = render(made, PUBLIC, "0" * 64)
    assert origin["unknown"] in page
    assert "as in our paper" in page
    assert verify(as_file(seal(made, KEY)), pinned=[PUBLIC]).ok
    for other in ({"by": "bob"}, {"event": {"seq": 99, "hash": "e" * 64}}, {"samples": 100}):
        document = made.as_json()
        document["predicate"]["model"]["origin"] |= other
        forged = Statement.model_validate_json(canonical(document))
        found = verify(as_file(seal(forged, KEY)), pinned=[PUBLIC])
        assert [check.what for check in found.checks if not check.ok] == ["summary"]


def test_an_adoption_is_held_against_what_was_written_down_of_the_ledger() -> None:
    adopted = {**ADOPTED, "event": {"seq": 4, "hash": chained()[3].previous}}
    content = as_file(seal(build(dataclasses.replace(FACTS, origin=adopted), chained()), KEY))
    assert verify(content, pinned=[PUBLIC], anchors=[Head(4, chained()[3].previous)]).ok
    found = verify(content, pinned=[PUBLIC], anchors=[Head(4, "d" * 64)])
    assert [check.how for check in found.checks if not check.ok] == [
        "event 4, an adoption of weights, is not the one that was anchored"
    ]


ONE, TWO, THREE = (digit * 64 for digit in "123")
STATED = facts.Stated(file="f" * 64, by="ada", trained_on="all", samples=100, of=100)
OF_A_FILE = facts.Adopted(weights=ONE, stated=STATED)
TRAINED_HERE = facts.Adopted(weights=ONE)


def promoted(ledger: Ledger, batch: str, base: str, result: str, method: str) -> None:
    with ledger.writing() as writer:
        attempt = facts.Attempt(attempt=1, method=method, base=facts.Base(weights=base))
        writer.append(attempt, batch)
        guarantee = facts.GUARANTEES.get(method, "approximate")
        writer.append(facts.Promotion(method=method, guarantee=guarantee, weights=result), batch)


@pytest.mark.parametrize(
    ("first", "methods", "is_of_the_file"),
    [
        (OF_A_FILE, (), True),
        (TRAINED_HERE, (), False),
        (OF_A_FILE, ("ssd",), True),
        (OF_A_FILE, ("ssd", "reinit"), True),
        (OF_A_FILE, (NOTHING_LEFT,), True),
        (OF_A_FILE, (NOTHING_LEFT, "ssd"), True),
        (OF_A_FILE, (EXACT,), False),
        (OF_A_FILE, ("ssd", EXACT), False),
        (OF_A_FILE, (EXACT, "ssd"), False),
        (OF_A_FILE, (EXACT, NOTHING_LEFT), False),
        (TRAINED_HERE, ("ssd",), False),
    ],
)
def test_a_model_is_of_the_file_until_it_was_trained_from_scratch(
    tmp_path: Path, first: facts.Adopted, methods: tuple[str, ...], is_of_the_file: bool
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger.writing() as writer:
        adoption = writer.append(first, None)
    current = ONE
    for number, method in enumerate(methods, 5):
        result = current if method == NOTHING_LEFT else str(number) * 64
        promoted(ledger, f"batch-{number}", current, result, method)
        current = result
    found = origin_of(ledger, current, before=ledger.head().seq + 1)
    assert found == (adoption if is_of_the_file else None)


def test_the_weights_that_are_in_production_count_and_not_what_was_adopted_later_or_before(
    tmp_path: Path,
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with ledger.writing() as writer:
        writer.append(TRAINED_HERE, None)
        second = writer.append(facts.Adopted(weights=TWO, stated=STATED), None)
        third = writer.append(facts.Adopted(weights=THREE, stated=STATED), None)
        back = writer.append(facts.RolledBack(weights=TWO, by="ada", reason="worse"), None)
    assert origin_of(ledger, ONE, before=back.seq + 1) is None
    assert origin_of(ledger, TWO, before=back.seq + 1) == second
    assert origin_of(ledger, THREE, before=back.seq + 1) == third
    assert origin_of(ledger, THREE, before=third.seq) is None
