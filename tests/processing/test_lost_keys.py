"""A lost key stops nobody but the request whose it is, wherever that stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tests.processing.conftest import Checkout, names
from tests.processing.quick import kill_at, quick

__all__ = ["quick"]


def broken(*_: Any) -> str:
    raise ExpungeError("a defect")


def test_a_request_whose_key_is_lost_stops_nobody_else(checkout: Checkout, quick: Any) -> None:
    lost, other = checkout.submit(*names(0, 1)), checkout.submit(*names(0, 1, 2))
    checkout.keys.destroy(lost.id)
    (problem,) = checkout.process(quick)
    assert f"request {lost.id}: its key is lost" in problem
    assert checkout.status(other.id) == "closed"
    checkout.desk.decide(facts.Refused(by="me", reason="nobody can tell what it named"), lost.id)
    assert checkout.process(quick) == []


@pytest.mark.parametrize("step", ["_keep_out", "_purge"])
def test_the_names_beside_a_lost_key_bring_on_what_has_begun(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (name,) = names(0, 1)
    lost = checkout.submit(name)
    kill_at(checkout, monkeypatch, step)
    (checkout.keys.folder / f"{lost.id}.key").unlink()
    other = checkout.submit(*names(0, 2))
    assert checkout.process(quick) == []
    assert checkout.status(lost.id) == checkout.status(other.id) == "closed"
    assert not Path("data/images", name).exists()


def test_without_the_names_its_purge_waits_and_the_others_go_on(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, same = checkout.submit(*names(0, 1)), checkout.submit(*names(0, 2))
    kill_at(checkout, monkeypatch, "_purge")
    key = checkout.keys.load(lost.id)
    checkout.keys.destroy(lost.id)
    later = checkout.submit(*names(0, 3))
    problem = f"request {lost.id}: its key is lost; restore it from the backup of the keys"
    assert checkout.process(quick) == [problem]
    assert [checkout.status(each.id) for each in (lost, same, later)] == ["promoted", "closed", "closed"]
    (checkout.keys.folder / f"{lost.id}.key").write_bytes(key)
    assert checkout.process(quick) == []
    assert checkout.status(lost.id) == "closed"
    assert not Path("data/images", *names(0, 1)).exists()


def test_where_it_cannot_be_told_before_the_promotion_the_batch_fails(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.set(retries=0)
    lost = checkout.submit(*names(0, 1))
    kill_at(checkout, monkeypatch, "_decide")
    checkout.keys.destroy(lost.id)
    other = checkout.submit(*names(0, 2))
    problems = checkout.process(quick)
    assert problems
    assert other.id not in " ".join(problems)
    assert (checkout.status(lost.id), checkout.status(other.id)) == ("failed", "closed")


def test_a_hold_whose_key_is_lost_protects_what_its_names_say_or_else_everything(
    checkout: Checkout, quick: Any
) -> None:
    (name,) = names(0, 7)
    court = {"by": "legal", "reason": "a lawsuit"}
    held = checkout.submit(name)
    checkout.desk.decide(facts.Held(**court), held.id)
    hold = checkout.desk.place_hold(**court, ids=names(0, 8))
    for each in (held.id, hold):
        (checkout.keys.folder / f"{each}.key").unlink()
    shares, other = checkout.submit(name, *names(0, 6)), checkout.submit(*names(0, 9))
    assert checkout.process(quick) == []
    assert (checkout.status(shares.id), checkout.status(other.id)) == ("promoted", "closed")
    assert Path("data/images", name).exists()
    checkout.desk.decide(facts.Released(**court), held.id)
    checkout.keys.forget_names(hold)
    (problem,) = [line for line in checkout.process(quick) if hold in line]
    assert problem.endswith(f"or: expunge release {hold}")
    assert checkout.status(shares.id) == "promoted"
    checkout.desk.lift_hold(hold, **court)
    checkout.process(quick)
    assert checkout.status(shares.id) == "closed"
    assert not Path("data/images", name).exists()


@pytest.mark.parametrize(("retries", "meanwhile"), [(1, "failed"), (0, "validated")])
def test_of_a_failed_batch_only_what_is_held_waits(
    checkout: Checkout, quick: Any, retries: int, meanwhile: str
) -> None:
    """The batch is tried again, or taken apart."""
    checkout.set(retries=retries)
    held, other = checkout.submit(*names(0, 1)), checkout.submit(*names(0, 2))
    checkout.process(broken)
    assert checkout.status(held.id) == checkout.status(other.id) == "failed"
    checkout.desk.decide(facts.Held(by="legal", reason="a lawsuit"), held.id)
    assert [line for line in checkout.process(quick) if held.id not in line] == []
    assert (checkout.status(held.id), checkout.status(other.id)) == (meanwhile, "closed")
    checkout.desk.decide(facts.Released(by="legal", reason="it is over"), held.id)
    assert checkout.process(quick) == []
    assert checkout.status(held.id) == "closed"
