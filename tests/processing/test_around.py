"""What stands around the processing: rollback, reconciliation, the cohort, sealed weights, lost samples."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import ExpungeError
from tasks.core.files import digest
from tasks.core.params import load
from tasks.erasure.purge import Purge, verify
from tasks.processing import production
from tasks.processing.cohort import audit_production
from tasks.processing.reconcile import differences
from tasks.processing.repository import Repository
from tasks.processing.rollback import why_forbidden
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Event
from tasks.requests.production import BASE
from tasks.requests.summary import summarise
from tasks.requests.suppression import Erased
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick, run_stages

__all__ = ["quick"]


def event(seq: int, kind: str, version: str, request: str | None = None) -> Event:
    return Event(seq, "", kind, request, {"version": version, "weights": version * 8}, "")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", None),
        ("2", "version 2 knows samples that were erased since, for r3"),
        ("1", "version 1 knows samples that were erased since, for r2, r3"),
        ("9", "version 9 was never in production"),
    ],
)
def test_only_what_knows_nothing_erased_may_return(version: str, reason: str | None) -> None:
    events = [
        event(1, "adopted", "1"),
        event(2, "promoted", "2", "r2"),
        event(3, "promoted", "3", "r3"),
        event(4, "promoted", "3", "r4"),
    ]
    found = why_forbidden(events, version)
    assert found is None if reason is None else (found or "").startswith(reason)


def test_a_base_that_was_replaced_by_hand_stops_everything(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    old = json.loads(Path("data/train/weights.json").read_text())
    Path("data/base/weights.json").write_text(json.dumps(old | {"sha256": "0" * 64}))
    (line,) = differences(checkout.desk, load(), checkout.root, {})
    assert "data/base does not hold the weights in production" in line
    alarms = audit_production(checkout.desk, load(), checkout.root).alarms
    assert any("data/base" in alarm for alarm in alarms)
    second = checkout.submit(*names(0, 2))
    with pytest.raises(ExpungeError, match="data/base does not hold the weights in production"):
        checkout.process(quick)
    assert checkout.status(second.id) == "validated"


def test_erased_samples_that_are_back_raise_an_alarm(checkout: Checkout, quick: Any) -> None:
    (name,) = names(0, 1)
    image = Path("data/images", name).read_bytes()
    checkout.submit(name)
    assert checkout.process(quick) == []
    assert audit_production(checkout.desk, load(), checkout.root).alarms == ()
    Path("data/images", name).write_bytes(image)
    values = load().model_dump()
    values["split"]["erased"] = None
    from tasks.core.params import validate
    from tasks.split import split

    with pytest.raises(ExpungeError, match=r"split\.erased is null though samples were erased"):
        split(validate(values))
    split(validate(values), KeyStore(checkout.root.parent / "keys of nobody", checkout.root))
    (alarm,) = audit_production(checkout.desk, load(), checkout.root).alarms
    assert alarm.startswith("1 erased sample(s) are in data/split again")


def test_small_requests_are_judged_together_and_a_change_is_told(checkout: Checkout, quick: Any) -> None:
    for number in range(3):
        checkout.submit(*names(number, *range(7)))
        assert checkout.process(quick) == []
    found = audit_production(checkout.desk, load(), checkout.root)
    assert found.body["count"] >= 9  # as many as val has to compare with
    with checkout.desk.ledger.writing() as writer:
        writer.append("cohort-audited", verdict="something else")
    again = audit_production(checkout.desk, load(), checkout.root)
    assert again.alarms == (f"the cohort's verdict was something else and is {again.verdict} now",)


def test_sealed_weights_stay_until_their_date(checkout: Checkout, quick: Any) -> None:
    checkout.set(superseded="seal", seal_reason="a lawsuit", seal_until="2027-12-31")
    request = checkout.submit(*names(0, 1))
    before = {path for path in Path(".dvc/cache").rglob("*") if path.is_file()}
    weights = {path for path in before if path.read_bytes()[8:10] == b'{"'}
    assert weights
    assert checkout.process(quick) == []
    assert all(path.exists() for path in weights)
    purged = next(event for event in checkout.desk.show(request.id).events if event.kind == "purged")
    results = [item["result"] for item in purged.body["checklist"]]
    assert "retained until 2027-12-31: a lawsuit" in results


def test_superseded_weights_are_destroyed_by_default(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))
    old = production.digest_of(Path("data/train"))
    weights = {p for p in Path(".dvc/cache").rglob("*") if p.is_file() and p.read_bytes()[8:10] == b'{"'}
    assert checkout.process(quick) == []
    assert not any(path.exists() for path in weights)
    assert production.digest_of(BASE) != old


def holding(value: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and value in path.read_bytes()]


def test_samples_that_were_lost_before_their_batch_are_left_out_by_training_anew(
    checkout: Checkout, quick: Any
) -> None:
    (name,) = names(0, 1)
    with Image.open(Path("data/images", name)) as image:
        pixels = np.asarray(image).tobytes()
    request = checkout.submit(name)
    Path("data/images", name).unlink()
    run_stages("train", {})
    assert holding(pixels, Path(".dvc/cache")) != []
    assert checkout.process(quick) == []
    events = checkout.desk.show(request.id).events
    started = next(event.body for event in events if event.kind == "started")
    assert (started["method"], started["lost"]) == ("retrain", 1)
    assert checkout.status(request.id) == "closed"
    assert holding(pixels, Path(".dvc/cache")) == []


def test_a_dry_run_lists_and_changes_nothing(checkout: Checkout) -> None:
    (name,) = names(0, 1)
    request = checkout.submit(name)
    before = checkout.repository.contents()
    purge = Purge(checkout.root, load(), checkout.desk, {})
    items = purge.plan([checkout.desk.show(request.id)])
    assert checkout.repository.contents() == before
    assert ("source", name) in {(item.store, item.item) for item in items}
    whole = {digest(Path("data/split", file)) for file in ("images.npy", "samples.csv", "manifest.csv")}
    assert whole <= {item.item for item in items if item.store == "DVC cache"}
    made = [item.item for item in items if item.how == "by lineage"]
    for path in ("data/train/weights.safetensors", "data/split/pictures.npy"):
        assert any(item.startswith(path) for item in made)


def test_verifying_finds_a_copy_anywhere_and_needs_the_key(checkout: Checkout, quick: Any) -> None:
    (name,) = names(0, 1)
    image = Path("data/images", name).read_bytes()
    model = Path("data/train/weights.safetensors").read_bytes()
    request = checkout.submit(name)
    assert checkout.process(quick) == []
    purge = Purge(checkout.root, load(), checkout.desk, {})
    Path("data/notes.txt").write_text(f"see {name}, please\n")
    Path("data/mia").mkdir(exist_ok=True)
    Path("data/mia/copy.bin").write_bytes(image)
    Path("best.bin").write_bytes(model)
    found = {
        Path(i.item).name for i in verify(purge, [checkout.desk.show(request.id)]) if "retained" in i.result
    }
    assert {"notes.txt", "copy.bin", "best.bin"} <= found
    with pytest.raises(ExpungeError, match="give a reason"):
        checkout.desk.destroy_key(request.id, by="me", reason=" ")
    checkout.desk.destroy_key(request.id, by="me", reason="ten years are over")
    with pytest.raises(ExpungeError, match="it was destroyed"):
        verify(purge, [checkout.desk.show(request.id)])


def test_an_open_request_keeps_its_key(checkout: Checkout) -> None:
    request = checkout.submit(*names(0, 1))
    with pytest.raises(ExpungeError, match="is validated"):
        checkout.desk.destroy_key(request.id, by="me", reason="why not")
    assert checkout.keys.exists(request.id)


def test_the_summary_counts_what_was_closed_and_how(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))
    checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    found = summarise(checkout.desk.requests(), checkout.time)
    assert found["requests"] == 2
    assert found["by status"] == {"closed": 1, "duplicate": 1}
    assert found["by method"] == {"retrain": 1}
    assert found["by guarantee"] == {"exact": 1}
    assert found["closed in time"] == 1
    assert found["days to close"]["longest"] == pytest.approx(15 / 60 / 24, abs=0.01)


def test_without_a_commit_nothing_can_be_recorded(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "empty")], check=True)
    with pytest.raises(ExpungeError, match="no Git repository with a commit"):
        Repository(tmp_path / "empty")


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left")


@pytest.mark.parametrize(("where", "name", "starts"), [(Erased, "write", 2), (Repository, "commit", 1)])
def test_a_pipeline_run_between_audit_and_promotion_does_no_harm(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, starts: int
) -> None:
    """Before the base was replaced the batch starts anew; afterwards its promotion is finished."""
    (image,) = names(0, 1)
    request = checkout.submit(image).id
    with monkeypatch.context() as patch:
        patch.setattr(production, "take_over", full_disk)
        with pytest.raises(OSError, match="No space"):  # in adopting, before anything has begun
            checkout.process(quick)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, full_disk)
        (problem,) = checkout.process(quick)
    assert "No space left" in problem
    assert checkout.status(request) == "failed"
    info = json.loads(Path("data/retrain/weights.json").read_text())
    Path("data/retrain/weights.json").write_text(json.dumps(info | {"sha256": "1" * 64}))
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    assert checkout.kinds(request).count("started") == starts
    assert not Path("data/images", image).exists()
    assert len(checkout.desk.show(request).content) == 1


def test_requests_of_a_batch_that_a_person_takes_apart_are_both_carried_out(
    checkout: Checkout, quick: Any
) -> None:
    first, second = (checkout.submit(*names(0, number)).id for number in (1, 2))
    checkout.set(retries=0)

    def broken(target: str, tags: Any) -> str:
        raise ExpungeError("no")

    checkout.process(broken)
    checkout.desk.decide("retried", first, by="me")
    assert checkout.process(quick) == []
    assert (checkout.status(first), checkout.status(second)) == ("closed", "failed")
    checkout.desk.decide("retried", second, by="me")
    assert checkout.process(quick) == []
    assert checkout.status(second) == "closed"
    subjects = checkout.repository.git("log", "--format=%s").splitlines()
    assert sum(subject.startswith("Forget 1") for subject in subjects) == 2
