"""What stands around the processing: rollback, reconciliation, the cohort, sealed weights, lost samples."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.files import digest
from tasks.core.params import load, read_yaml
from tasks.erasure.purge import Purge, verify
from tasks.processing import processor as processing
from tasks.processing import production, steplog
from tasks.processing.cohort import audit_production
from tasks.processing.reconcile import differences
from tasks.processing.repository import Repository
from tasks.processing.rollback import why_forbidden
from tasks.requests import events as facts
from tasks.requests.chain import Event
from tasks.requests.keys import KeyStore
from tasks.requests.production import BASE, changes
from tasks.requests.summary import summarise
from tasks.requests.suppression import Erased
from tasks.samples.manifest import Samples
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick, run_stages

__all__ = ["quick"]


def event(seq: int, kind: str, version: str, request: str | None = None) -> Event:
    body = {"version": version, "weights": version * 8, "method": "none", "guarantee": "approximate"}
    return Event(seq, "", kind, request, json.dumps(body), "")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("3", None),
        ("2", "version 2 knows samples that were erased since, by r3"),
        ("1", "version 1 knows samples that were erased since, by r2, r3"),
        ("9", "version 9 was never in production"),
    ],
)
def test_only_what_knows_nothing_erased_may_return(version: str, reason: str | None) -> None:
    events = [
        event(1, "adopted", "1"),
        event(2, "promoted", "2", "r2"),  # as a ledger of before tells it, and as it is told now
        event(3, "batch-promoted", "3", "r3"),
        event(4, "batch-promoted", "3", "r4"),
    ]
    found = why_forbidden(changes(events), version)
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


def test_a_split_that_cannot_be_made_again_is_told_without_a_name(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(processing.Processor, "_decide", killed)
        with pytest.raises(KeyboardInterrupt):
            checkout.process(quick)
    shutil.rmtree("data/split/images")

    def broken(target: str, tags: Any) -> str:
        raise ExpungeError("data/images/train/0/002.png is damaged")

    problems = checkout.process(broken)
    assert f"data/split is incomplete and cannot be made again; expunge show {request} tells why" in problems
    assert "002.png" not in " ".join(problems)


def test_small_requests_are_judged_together_and_a_change_is_told(checkout: Checkout, quick: Any) -> None:
    for number in range(3):
        checkout.submit(*names(number, *range(7)))
        assert checkout.process(quick) == []
        kept = json.loads(next(checkout.keys.folder.glob("cohort-*.json")).read_text())
        told = [
            event.raw["pooled"]["count"] for event in checkout.desk.ledger.events(kinds=("cohort-pooled",))
        ]
        # of fewer than 20 members the record tells nothing, not even their sum
        assert sum(sums["count"] for sums in kept.values()) < 20
        assert all(count >= 20 for count in told)
        assert "placements" not in json.dumps([event.raw for event in checkout.desk.ledger.events()])
    found = audit_production(checkout.desk, load(), checkout.root)
    recorded = checkout.desk.ledger.last((facts.CohortAudited.kind,))
    assert recorded is not None
    assert recorded.raw.get("count", 0) == sum(told)
    checkout.desk.record(facts.CohortAudited(verdict="something else"))
    again = audit_production(checkout.desk, load(), checkout.root)
    assert again.alarms == (f"the cohort's verdict was something else and is {again.verdict} now",)
    assert found.alarms == ()


def test_sealed_weights_stay_until_their_date(checkout: Checkout, quick: Any) -> None:
    checkout.set(superseded="seal", seal_reason="a lawsuit", seal_until="2027-12-31")
    request = checkout.submit(*names(0, 1))
    before = {path for path in Path(".dvc/cache").rglob("*") if path.is_file()}
    weights = {path for path in before if path.read_bytes()[8:10] == b'{"'}
    assert weights
    assert checkout.process(quick) == []
    assert all(path.exists() for path in weights)
    purged = checkout.desk.show(request.id).common(facts.Purge)
    assert purged is not None
    sealed = [line for line in purged.checklist if line.outcome == "sealed"]
    assert [line.detail for line in sealed] == ["until 2027-12-31: a lawsuit"]


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
    attempt = checkout.desk.show(request.id).common(facts.Attempt)
    assert attempt is not None
    assert (attempt.method, attempt.lost) == ("retrain", 1)
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
    whole = {digest(Path("data/split", file)) for file in ("images/00000.npy", "samples.csv", "manifest.csv")}
    assert whole <= {item.item for item in items if item.store == "DVC cache"}
    made = [item.item for item in items if item.why == "by lineage"]
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
    checklist = verify(purge, [checkout.desk.show(request.id)])
    assert not checklist.holds
    found = {Path(detail.item).name for detail in checklist.details if detail.outcome == "kept-reported"}
    assert not any(name in str(line.as_json()) for name in found for line in checklist)
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
    found = summarise(checkout.desk, checkout.time)
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
        problem = checkout.process(quick)[0]
    assert "promoting, failed (system)" in problem
    assert "No space left" in steplog.last(checkout.desk.show(request).batch or "")
    assert checkout.status(request) == "promoting"
    info = json.loads(Path("data/retrain/weights.json").read_text())
    Path("data/retrain/weights.json").write_text(json.dumps(info | {"sha256": "1" * 64}))
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    assert checkout.kinds(request).count("started") == starts
    assert not Path("data/images", image).exists()
    assert len(checkout.desk.show(request).content) == 1


def test_one_request_does_not_stop_the_others_of_its_batch(checkout: Checkout, quick: Any) -> None:
    """A batch that fails too often is carried out in halves, down to the one request that is the reason."""
    requests = [checkout.submit(*names(0, number)).id for number in (1, 2, 3)]
    (bad,) = names(0, 2)
    checkout.set(retries=0)

    def broken(target: str, tags: Any) -> str:
        if bad in Path("data/requests/batch.txt").read_text().splitlines():
            raise ExpungeError("no")
        key: str = quick(target, tags)
        return key

    for _ in range(6):
        assert checkout.process(broken) != []
    assert [checkout.status(request) for request in requests] == ["closed", "failed", "closed"]
    assert Path("data/images", bad).exists()
    checkout.desk.decide(facts.Retried(by="me"), requests[1])
    assert checkout.process(quick) == []
    assert checkout.status(requests[1]) == "closed"
    subjects = checkout.repository.git("log", "--format=%s").splitlines()
    assert sum(subject.startswith("Forget 1 ") for subject in subjects) in {1, 3}  # as they were halved


def test_a_request_that_is_withdrawn_while_its_batch_waits_leaves_the_others_to_go_on(
    checkout: Checkout, quick: Any
) -> None:
    first, second = (checkout.submit(*names(0, number)).id for number in (1, 2))

    def broken(target: str, tags: Any) -> str:
        raise ExpungeError("no")

    assert checkout.process(broken) != []
    checkout.desk.decide(facts.Withdrawn(by="me", reason="a mistake"), first)
    assert checkout.process(quick) == []
    assert (checkout.status(first), checkout.status(second)) == ("withdrawn", "closed")
    assert Path("data/images", *names(0, 1)).exists()
    assert not Path("data/images", *names(0, 2)).exists()


def test_once_its_promotion_has_begun_a_request_can_neither_be_refused_nor_withdrawn(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id
    checkout.processor()._adopt()
    with monkeypatch.context() as patch:
        patch.setattr(production, "take_over", full_disk)
        for _ in range(5):  # it is tried again in every run, and every run says so
            assert len(checkout.process(quick)) == 1
    assert checkout.kinds(request)[-1] == "promoting"
    for decision in (facts.Refused, facts.Withdrawn):
        with pytest.raises(ExpungeError, match="is promoting"):
            checkout.desk.decide(decision(by="me", reason="not theirs"), request)
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"


def test_a_request_that_is_refused_after_the_audit_is_not_promoted_with_its_batch(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (checkout.submit(*names(0, number)).id for number in (1, 2))

    def unreachable(*_: Any, **__: Any) -> None:
        raise UnavailableError("MLflow does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(processing.Processor, "_register", unreachable)
        assert checkout.process(quick) != []
    assert checkout.status(first) == "audited"
    checkout.desk.decide(facts.Refused(by="me", reason="not theirs"), first)
    assert checkout.process(quick) == []
    assert (checkout.status(first), checkout.status(second)) == ("refused", "closed")
    assert checkout.kinds(second).count("started") == 2
    assert Path("data/images", *names(0, 1)).exists()


def test_the_users_edit_of_the_parameters_during_a_batch_stays(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))

    def edited(target: str, tags: Any) -> str:
        text = Path("params.yaml").read_text()
        assert "start: base" in text
        Path("params.yaml").write_text(text.replace("title: ", "title: My "))
        raise ExpungeError("no")

    before = read_yaml(Path("params.yaml"))
    assert checkout.process(edited) != []
    after = read_yaml(Path("params.yaml"))
    assert after["report"].pop("title") == "My " + before["report"].pop("title")
    assert after == before


def test_all_of_val_can_be_forgotten(checkout: Checkout, quick: Any) -> None:
    samples = Samples.read(Path("data/split/samples.csv"))
    val = [samples.sample_ids[row] for row in samples.indices("val")]
    request = checkout.submit(*val)
    assert checkout.process(quick) == []
    assert checkout.status(request.id) == "closed"
    again = checkout.submit(*names(0, 30))
    assert checkout.process(quick) == []
    assert checkout.status(again.id) == "closed"


def test_a_second_checkout_of_a_ledger_carries_nothing_out(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    second = checkout.submit(*names(0, 2))
    other = checkout.root.with_name("other")
    shutil.copytree(checkout.root, other, symlinks=True)
    before = checkout.kinds(second.id)
    processor = checkout.processor(quick)
    processor.root = other
    with pytest.raises(ExpungeError, match="carried out in another checkout"):
        processor.process()
    assert checkout.kinds(second.id) == before
    shutil.rmtree(other)


def test_an_edited_ledger_stops_everything_before_anything_is_decided(checkout: Checkout, quick: Any) -> None:
    request = checkout.submit(*names(0, 1))
    with closing(sqlite3.connect("data/requests/ledger.db")) as database:
        database.execute("DROP TRIGGER expunge_no_UPDATE")
        database.execute(
            "UPDATE expunge_events SET body = replace(body, 'id', 'di') WHERE kind = 'validated'"
        )
        database.commit()
    with pytest.raises(ExpungeError, match="event 2 was changed"):
        checkout.process(quick)
    assert checkout.kinds(request.id) == ["received", "validated"]
    with pytest.raises(ExpungeError, match="event 2 was changed"):
        audit_production(checkout.desk, load(), checkout.root)


def test_a_remote_that_was_down_is_searched_by_later_runs_and_the_ledger_tells_what_they_searched(
    checkout: Checkout, quick: Any
) -> None:
    checkout.repository.dvc("remote", "add", "away", "../away")
    checkout.repository.commit("a remote that is not mounted")
    request = checkout.submit(*names(0, 1)).id
    checkout.process(quick)
    assert checkout.status(request) == "closed"
    told = len(checkout.desk.ledger.events())
    (problem,) = checkout.process(quick)
    assert problem.startswith("DVC remote away could not be searched")
    assert len(checkout.desk.ledger.events()) == told
    checkout.root.with_name("away").mkdir()
    assert checkout.process(quick) == []
    first, second = checkout.desk.show(request).all_common(facts.Purge)
    assert {"DVC cache", "workspace", "Git history"} <= {line.store for line in first.checklist}
    assert [(line.store, line.outcome) for line in second.checklist] == [
        ("DVC remote away", "nothing-found"),
        ("all other stores", "not-applicable"),
    ]
    assert set(first.void_weights) == set(second.void_weights)
    assert checkout.process(quick) == []
    assert len(checkout.desk.show(request).all_common(facts.Purge)) == 2
