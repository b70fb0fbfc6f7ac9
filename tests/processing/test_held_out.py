"""Requests for test and validation images: erased everywhere, and no model is touched for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.core.params import load
from tasks.erasure.purge import Purge, verify
from tasks.processing import production
from tasks.requests import events as facts
from tasks.requests import trace
from tasks.requests.events import NOTHING_LEARNED
from tasks.requests.heldout import listed
from tasks.requests.production import BASE, in_production
from tasks.samples.manifest import Manifest, Samples
from tests.processing.conftest import Checkout, names
from tests.processing.quick import kill_at, quick
from tests.processing.test_processor import bytes_anywhere, ids_in_data, weights_in

__all__ = ["quick"]

TEST = ["test/0/001.png", "test/0/002.png"]


def of_part(part: str) -> list[str]:
    samples = Samples.read(Path("data/split/samples.csv"))
    return [samples.sample_ids[row] for row in samples.indices(part)]


def untouched(target: str, tags: Mapping[str, str]) -> str:
    raise AssertionError(f"{target} was run")


def test_a_request_for_test_images_alone_trains_nothing_and_erases_them_everywhere(
    checkout: Checkout,
) -> None:
    images = [Path("data/images", name).read_bytes() for name in TEST]
    weights = production.digest_of(production.TRAINED)
    request = checkout.submit(TEST[0], samples={"id": TEST[:1], "path": TEST[1:]}).id
    assert checkout.process(untouched) == []
    assert checkout.status(request) == "closed"
    found = checkout.desk.show(request)
    attempt, promotion = found.common(facts.Attempt), found.common(facts.Promotion)
    assert attempt is not None
    assert promotion is not None
    assert (attempt.method, promotion.guarantee) == (NOTHING_LEARNED, "never-learned")
    current = in_production(checkout.desk.ledger)
    assert current is not None
    assert current.weights == promotion.weights == weights == production.digest_of(BASE)
    assert weights_in(checkout.root) == {weights}
    assert not set(TEST) & ids_in_data()
    assert not set(TEST) & listed()
    assert bytes_anywhere(checkout.root, *images, *(name.encode() for name in TEST)) == []
    audited = found.latest(facts.Audited)
    assert audited is not None
    assert audited.held_out == 2
    assert "2 of its samples are test or validation images" in audited.told()
    assert any("2 of its samples" in step.what for step in trace.trace(found, checkout.root))
    page = Path(f"data/requests/certificates/{request}.html").read_text()
    assert "2 of them: test or validation images" in page
    assert "never-learned" in page.replace("never learned", "never-learned")
    assert checkout.repository.git("status", "--porcelain", "-uno") == ""
    checkout.repository.dvc("repro", "split")
    assert not set(TEST) & ids_in_data()
    purge = Purge(checkout.root, load(), checkout.desk, {})
    assert [line for line in verify(purge, [found]) if not line.holds] == []
    assert str(checkout.submit(*TEST).state.status) == "duplicate"


def test_a_validation_image_that_was_never_learned_trains_nothing(checkout: Checkout) -> None:
    (name, *_) = of_part("val")
    request = checkout.submit(name).id
    assert checkout.process(untouched) == []
    assert checkout.status(request) == "closed"
    assert name not in ids_in_data() | listed()


def test_a_validation_image_that_was_learned_in_an_earlier_split_is_unlearned(
    checkout: Checkout, quick: Any
) -> None:
    checkout.processor(quick)._adopt()
    (name, *others) = of_part("val")
    production.write_heldout([*others, *of_part("test")])  # as if it had been a training image then
    request = checkout.submit(name).id
    assert checkout.process(quick) == []
    found = checkout.desk.show(request)
    promotion, audited = found.common(facts.Promotion), found.latest(facts.Audited)
    assert promotion is not None
    assert audited is not None
    assert (promotion.method, audited.held_out) == ("retrain", 0)


def test_of_a_mixed_batch_only_what_was_learned_is_unlearned(checkout: Checkout, quick: Any) -> None:
    (val, *_) = of_part("val")
    train = [name for name in names(1, *range(40)) if name in of_part("train")][:2]
    seen: list[dict[str, str]] = []

    def watched(target: str, tags: Mapping[str, str]) -> str:
        key: str = quick(target, tags)
        manifest = Manifest.read(Path("data/split/manifest.csv"))
        seen.append(dict(zip(manifest.sample_ids, manifest.roles.tolist(), strict=True)))
        return key

    first, second = checkout.submit(*TEST).id, checkout.submit(*train, val, requester="crm:2").id
    assert checkout.process(watched) == []
    assert checkout.status(first) == checkout.status(second) == "closed"
    (roles,) = seen
    assert [name for name, role in roles.items() if role == "forget"] == train
    assert {roles[name] for name in (*TEST, val)} == {"test"}
    assert not {*TEST, val, *train} & (ids_in_data() | listed())
    held_out = []
    for request in (first, second):
        audited = checkout.desk.show(request).latest(facts.Audited)
        assert audited is not None
        held_out.append(audited.held_out)
        assert len(audited.content) == len(checkout.desk.show(request).digests["id"])
    assert held_out == [2, 1]
    current = in_production(checkout.desk.ledger)
    assert current is not None
    assert current.weights == production.digest_of(BASE)


def test_all_of_a_class_may_be_asked_for_with_what_was_held_out_of_it(checkout: Checkout, quick: Any) -> None:
    wanted = [name for name in (*of_part("train"), *of_part("val"), *of_part("test")) if "/2/" in name]
    request = checkout.submit(*wanted).id
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    assert not set(wanted) & ids_in_data()
    quick("split", {})
    assert json.loads(Path("data/split/classes.json").read_text()) == ["0", "1", "2"]


def test_all_test_images_may_leave(checkout: Checkout) -> None:
    wanted = of_part("test")
    request = checkout.submit(*wanted).id
    assert checkout.process(untouched) == []
    assert checkout.status(request) == "closed"
    assert of_part("test") == []
    later = checkout.submit(*names(0, 1)).id
    assert checkout.process() == []
    assert checkout.status(later) == "closed"


@pytest.mark.parametrize(
    "step",
    [
        "_promote",
        "_purge",
        *(pytest.param(step, marks=pytest.mark.long) for step in ("_run", "_decide", "_close")),
    ],
)
def test_a_kill_at_any_step_leads_to_the_same_end(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    request = checkout.submit(*TEST).id
    kill_at(checkout, monkeypatch, step)
    assert checkout.process(untouched) == []
    assert checkout.status(request) == "closed"
    assert not set(TEST) & (ids_in_data() | listed())


def test_a_promotion_that_was_killed_before_it_was_recorded_is_done_again(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (val, *_) = of_part("val")
    train = [name for name in names(1, *range(40)) if name in of_part("train")][:1]
    request = checkout.submit(val, *train, *TEST).id
    kill_at(checkout, monkeypatch, "_link")
    assert checkout.status(request) == "promoting"
    assert checkout.process(untouched) == []
    assert checkout.status(request) == "closed"
    assert not {val, *train, *TEST} & (ids_in_data() | listed())
