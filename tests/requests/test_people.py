"""Requests for all samples of a person, and for the copies of what is asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.intake import Receipt
from tasks.requests.keys import reference
from tasks.requests.parsing import parse
from tasks.requests.schema import SubmissionError
from tasks.requests.settings import Settings
from tasks.requests.subjects import write_subjects
from tests.requests.conftest import LIFE, go_on, named, row_of, submission, validated

PEOPLE = {
    "train/3.png": ("crm:1",),
    "train/4.png": ("crm:1", "crm:2"),
    "train/10.png": ("crm:1",),
    "test/0.png": ("crm:1",),
    "train/5.png": ("crm:3",),
    "train/6.png": ("Zo\u00eb",),
}
ONE = ["test/0.png", "train/10.png", "train/3.png", "train/4.png"]
SHARED = {"subject": ["crm:1"]}
ALONE = {"subject": ["crm:3"]}


@pytest.fixture
def people(desk: Desk, root: Path) -> Catalogue:
    """The split says whose its samples are."""
    return tell(desk, PEOPLE)


def tell(desk: Desk, of: dict[str, tuple[str, ...]]) -> Catalogue:
    write_subjects(list(of), list(of.values()), desk.keys, Path("data/split"))
    return Catalogue.load()


def take(desk: Desk, catalogue: Catalogue | None, **changes: object) -> Receipt:
    return desk.submit(submission(**changes), "a.json", catalogue, channel="cli")


def problem_of(receipt: Receipt) -> str:
    (problem,) = receipt.problems
    return str(problem)


# by person


def test_a_person_is_all_samples_of_train_val_and_test(desk: Desk, people: Catalogue) -> None:
    receipt = take(desk, people, samples=SHARED)
    assert receipt.problems == ()
    assert named(desk, receipt) == ONE
    key = desk.keys.load(receipt.request.id)
    assert validated(receipt).subjects == (reference(key, "subject", "crm:1"),)
    texts = "".join(event.text for event in receipt.request.events)
    assert "crm:1" not in texts
    assert "train/" not in texts


def test_a_person_is_asked_for_in_csv_too(desk: Desk, people: Catalogue) -> None:
    rows = [
        "requester,received_at,ground,kind,value,near_copies",
        "crm:9,2026-05-01T09:30:00Z,objection,subject,crm:3,include",
    ]
    receipt = desk.submit("\n".join(rows).encode(), "a.csv", people, channel="inbox")
    assert named(desk, receipt) == ["train/5.png"]


def test_a_sample_of_a_person_may_be_named_by_itself_too(desk: Desk, people: Catalogue) -> None:
    samples = {"subject": ["crm:1", "crm:2"], "id": ["train/3.png", "train/8.png"], "index": [4]}
    receipt = take(desk, people, samples=samples)
    assert receipt.problems == ()
    assert named(desk, receipt) == sorted([*ONE, "train/8.png"])
    twice = take(desk, people, samples={"subject": ["crm:1"], "id": ["train/3.png"], "index": [3]})
    assert "means a sample that is named before" in problem_of(twice)


def test_a_name_is_one_in_either_form_of_unicode(desk: Desk, people: Catalogue) -> None:
    assert named(desk, take(desk, people, samples={"subject": ["Zoe\u0308"]})) == ["train/6.png"]


def test_nobody_of_that_name_is_rejected_with_one_line(desk: Desk, people: Catalogue) -> None:
    receipt = take(desk, people, samples={"subject": ["crm:8"]})
    assert str(receipt.request.state.status) == "rejected"
    assert problem_of(receipt) == "line 1: subject 'crm:8': is nobody of whom a sample is held"
    assert "crm:8" not in "".join(event.text for event in receipt.request.events)


def test_a_split_that_does_not_say_whose_samples_are_tells_what_to_set(
    desk: Desk, catalogue: Catalogue
) -> None:
    assert "split.subject" in problem_of(take(desk, catalogue, samples=SHARED))
    tell(desk, dict.fromkeys(PEOPLE, ()))
    assert "split.subject" in problem_of(take(desk, Catalogue.load(), samples=SHARED))


def test_a_person_who_was_erased_is_a_duplicate_until_another_image_comes(
    desk: Desk, people: Catalogue
) -> None:
    first = take(desk, people, samples=ALONE).request
    waiting = take(desk, tell(desk, {"train/3.png": ("crm:1",)}), samples=ALONE)
    assert str(waiting.request.state.status) == "received"  # the first has not erased them yet
    go_on(desk, first, *LIFE)
    gone = tell(desk, {name: of for name, of in PEOPLE.items() if of != ("crm:3",)})
    again = take(desk, gone, samples=ALONE)
    assert (str(again.request.state.status), again.request.first) == ("duplicate", first.id)
    nobody = take(desk, tell(desk, {"train/3.png": ()}), samples=ALONE)
    assert str(nobody.request.state.status) == "duplicate"
    back = take(desk, tell(desk, PEOPLE | {"train/7.png": ("crm:3",), "train/5.png": ()}), samples=ALONE)
    assert str(back.request.state.status) == "validated"
    assert named(desk, back) == ["train/7.png"]


def test_without_the_key_of_people_a_request_is_received_and_waits(desk: Desk, people: Catalogue) -> None:
    path = desk.keys.folder / "subjects.key"
    key = path.read_bytes()
    path.unlink()
    receipt = take(desk, people, samples=ALONE)
    assert str(receipt.request.state.status) == "received"
    assert "subjects.key" in receipt.waits
    assert str(take(desk, people).request.state.status) == "validated"  # who names samples need not wait
    assert list(desk.resolve(people)) == []
    path.write_bytes(key)
    (resolved,) = desk.resolve(people)
    assert resolved.request.id == receipt.request.id
    assert named(desk, resolved) == ["train/5.png"]


def test_two_requests_for_a_person_wait_one_behind_the_other(desk: Desk, people: Catalogue) -> None:
    first, second = (take(desk, people, samples=ALONE).request for _ in range(2))
    third = take(desk, people, samples={"id": ["train/5.png"]}).request
    assert [row_of(desk, each).first for each in (first, second, third)] == [None, first.id, first.id]


# several people in one


@pytest.mark.parametrize("shared", ["ask", "erase"])
def test_a_sample_that_shows_others_too_is_told_and_asked_about(
    desk: Desk, people: Catalogue, shared: str
) -> None:
    desk = replace(desk, settings=Settings.model_validate({"shared": shared}))
    receipt = take(desk, people, samples=SHARED)
    assert validated(receipt).shared == 1
    assert "1 sample(s) show other people, too" in receipt.told()
    row = row_of(desk, receipt.request)
    assert row.shared == 1
    assert [each.request for each in desk.ready()] == ([] if shared == "ask" else [row.request])
    assert desk.waits_for_approval(row) is (shared == "ask")
    assert ("expunge approve" in desk.next_of(row)) is (shared == "ask")
    desk.decide(facts.Approved(by="dpo"), row.request)
    assert [each.request for each in desk.ready()] == [row.request]


@pytest.mark.parametrize(
    ("samples", "told", "row"),
    [
        (ALONE, 0, None),
        ({"subject": ["crm:1", "crm:2"]}, 0, None),  # all whom it shows ask
        ({"id": ["train/4.png"]}, 1, None),  # who names a sample knows what is asked for
        ({"id": ["train/5.png"]}, 0, None),
        ({"subject": ["crm:1"], "id": ["train/5.png"]}, 1, 1),
    ],
)
def test_only_what_shows_somebody_who_does_not_ask_is_shared(
    desk: Desk, people: Catalogue, samples: dict[str, list[str]], told: int, row: int | None
) -> None:
    receipt = take(desk, people, samples=samples)
    assert validated(receipt).shared == told
    assert row_of(desk, receipt.request).shared == row


def test_a_table_of_states_of_before_is_made_again(desk: Desk, people: Catalogue) -> None:
    from sqlalchemy import create_engine, text

    receipt = take(desk, people, samples=SHARED)
    with create_engine("sqlite:///data/requests/ledger.db").begin() as connection:
        connection.execute(text("ALTER TABLE expunge_standing DROP COLUMN shared"))
    assert row_of(desk, receipt.request).shared == 1
    desk.check_whole()


# copies

COPIES = """sample_id,same,alike
train/3.png,1,1
train/8.png,1,1
train/9.png,0,1
test/1.png,0,1
train/0.png,2,2
train/1.png,2,2
"""


def test_copies_are_taken_along_with_copies_of_copies_and_test_samples(desk: Desk, root: Path) -> None:
    Path("data/split/copies.csv").write_text(COPIES)
    catalogue = Catalogue.load()
    told = take(desk, catalogue)
    assert len(told.copies or ()) == 3
    assert validated(told).near_copies == 0
    receipt = take(desk, catalogue, near_copies="include")
    assert named(desk, receipt) == ["test/1.png", "train/3.png", "train/8.png", "train/9.png"]
    assert (validated(receipt).near_copies, validated(receipt).copies) == (3, 0)
    assert "3 sample(s) that show the same picture are taken along" in receipt.told()
    plain = take(desk, catalogue, near_copies="tell", samples={"id": ["train/0.png"]})
    assert named(desk, plain) == ["train/0.png"]


def test_copies_of_a_persons_samples_that_show_others_are_asked_about(desk: Desk, root: Path) -> None:
    Path("data/split/copies.csv").write_text(COPIES)
    catalogue = tell(desk, {"train/3.png": ("crm:3",), "train/8.png": ("crm:4",)})
    receipt = take(desk, catalogue, samples=ALONE, near_copies="include")
    assert (validated(receipt).near_copies, row_of(desk, receipt.request).shared) == (3, 1)


def test_copies_that_nobody_has_looked_for_cannot_be_taken_along(desk: Desk, root: Path) -> None:
    Path("data/split/copies.csv").unlink()
    receipt = take(desk, Catalogue.load(), near_copies="include")
    assert "near_copies" in problem_of(receipt)
    assert "dvc repro split" in problem_of(receipt)


@pytest.mark.parametrize("value", ["yes", True, "", ["include"]])
def test_near_copies_is_one_of_two_words(value: object) -> None:
    with pytest.raises(SubmissionError, match=r"near_copies.* must be one of tell, include"):
        parse(submission(near_copies=value), "a.json")


@pytest.mark.parametrize("value", [4711, "", "a\n", None])
def test_a_subject_is_text(value: object) -> None:
    with pytest.raises(SubmissionError, match=r"samples\.subject\[0\]"):
        parse(json.dumps(json.loads(submission()) | {"samples": {"subject": [value]}}).encode(), "a.json")
