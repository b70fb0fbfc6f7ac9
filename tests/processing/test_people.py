"""Requests for all samples of a person, carried out: train, val and test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.params import load
from tasks.erasure.purge import Purge, verify
from tasks.processing.attention import what_needs_a_person
from tasks.requests import events as facts
from tasks.requests.heldout import listed
from tasks.samples.manifest import Samples
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick
from tests.processing.test_processor import bytes_anywhere, ids_in_data

__all__ = ["quick"]

VAL = [f"val/{label}/{number:03}.png" for label in range(3) for number in range(4)]
OF_ONE = [*names(0, 1, 2), "val/0/001.png", "test/0/003.png"]
OF_BOTH = "train/1/005.png"


@pytest.fixture
def people(checkout: Checkout) -> Checkout:
    """A checkout whose source has a val part, and says whose its images are."""
    images = Path("data/images")
    for name in VAL:
        path = images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (images / "train" / name.split("/")[1] / f"{30 + int(name[-7:-4]):03}.png").rename(path)
    rows = [f"{name},crm:1" for name in OF_ONE]
    rows += [f"{OF_BOTH},crm:1;crm:2", "test/1/002.png,crm:3"]
    (images / "subjects.csv").write_text("\n".join(["path,subject", *rows, ""]))
    checkout.repository.dvc("repro", "train")
    checkout.repository.commit("images of people")
    return checkout


def test_a_person_leaves_train_val_and_test_with_what_shows_others(people: Checkout) -> None:
    wanted = [*OF_ONE, OF_BOTH]
    images = [Path("data/images", name).read_bytes() for name in wanted]
    request = people.submit(samples={"subject": ["crm:1"]}).id
    assert people.process() == []
    assert people.status(request) == "validated"
    needs = what_needs_a_person(people.desk, load(), people.root, {}, reconcile=False)
    assert any("1 of its samples show other people" in line and "expunge approve" in line for line in needs)
    people.desk.decide(facts.Approved(by="dpo"), request)
    assert people.process() == []
    assert people.status(request) == "closed"
    found = people.desk.show(request)
    audited = found.latest(facts.Audited)
    assert audited is not None
    assert (found.count, audited.held_out) == (5, 2)
    assert not set(wanted) & (ids_in_data() | listed())
    assert bytes_anywhere(people.root, *images, *(name.encode() for name in wanted), b"crm:1;") == []
    certificate = json.loads(Path(f"data/requests/certificates/{request}.json").read_text())
    assert "crm:2" not in json.dumps(certificate)
    table = Path("data/images/subjects.csv").read_text()
    assert table == "path,subject\ntest/1/002.png,crm:3\n"
    assert "crm:1" not in "".join(event.text for event in people.desk.ledger.events(request))[300:]
    purge = Purge(people.root, load(), people.desk, {})
    assert [line for line in verify(purge, [found]) if not line.holds] == []
    assert people.repository.git("status", "--porcelain", "-uno") == ""
    again = people.submit(samples={"subject": ["crm:1"]}, requester="crm:9")
    assert (str(again.state.status), again.first) == ("duplicate", request)


@pytest.mark.long
def test_all_of_the_sources_val_part_may_leave(people: Checkout, quick: Any) -> None:
    request = people.submit(*VAL).id
    assert people.process(quick) == []
    assert people.status(request) == "closed"
    samples = Samples.read(Path("data/split/samples.csv"))
    assert len(samples.indices("val"))  # of the training images now
    later = people.submit(*names(2, 1)).id
    assert people.process(quick) == []
    assert people.status(later) == "closed"


def test_copies_are_taken_along_and_erased(people: Checkout, quick: Any) -> None:
    images = Path("data/images")
    (images / "test/2/009.png").write_bytes((images / "train/2/001.png").read_bytes())
    (images / "train/2/020.png").write_bytes((images / "train/2/001.png").read_bytes())
    people.repository.dvc("repro", "train")
    people.repository.commit("copies")
    request = people.submit(*names(2, 1), near_copies="include").id
    assert people.desk.show(request).count == 3
    assert people.process(quick) == []
    assert people.status(request) == "closed"
    assert not {*names(2, 1, 20), "test/2/009.png"} & ids_in_data()


@pytest.mark.long
def test_with_erase_nobody_is_asked_about_what_shows_others(people: Checkout, quick: Any) -> None:
    people.set(shared="erase")
    request = people.submit(samples={"subject": ["crm:2"]}).id
    assert people.process(quick) == []
    assert people.status(request) == "closed"
    assert OF_BOTH not in ids_in_data()
