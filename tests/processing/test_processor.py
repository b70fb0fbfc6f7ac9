"""Requests carried out for real: DVC runs the stages, Git records, stores are searched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.core.params import load
from tasks.engine.weights import tensor_digest
from tasks.erasure.purge import Purge, verify
from tasks.requests import events as facts
from tasks.requests.chain import check_chain
from tasks.requests.commits import anchors_in_git
from tasks.samples.manifest import Manifest, Samples
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick

__all__ = ["quick"]

LIFE = [
    "received", "validated", "batched", "started", "audited",
    "promoting", "promoted", "purging", "purged", "closed",
]  # fmt: skip


def ids_in_data() -> set[str]:
    return set(Samples.read(Path("data/split/samples.csv")).sample_ids)


def bytes_anywhere(root: Path, *wanted: bytes) -> list[Path]:
    files = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts]
    return [path for path in files if any(value in path.read_bytes() for value in wanted)]


def figures_of_members(root: Path) -> set[str]:
    """Names of figures that tell of the forget set, in whatever a stage left: outputs, cache, journals."""
    name = re.compile(rb'"((?:forget|retain)/(?:acc|loss)|audit/(?:original_)?auc|placements|unlearn/\w+)')
    folders = [root / folder for folder in ("data", ".dvc/cache", ".expunge")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert any(b'"val/acc"' in path.read_bytes() for path in files if path.name == "journal.jsonl")
    return {found.decode() for path in files for found in name.findall(path.read_bytes())}


def weights_in(root: Path) -> set[str]:
    """Digests of the tensors of all safetensors files in a folder, whatever they are called."""
    files = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {tensor_digest(load_file(path)) for path in files if path.read_bytes()[8:10] == b'{"'}


def test_a_request_goes_all_the_way(checkout: Checkout) -> None:
    (name,) = names(0, 7)
    image = Path("data/images", name).read_bytes()
    request = checkout.submit(name).id
    before = Path("params.yaml").read_text()
    assert checkout.process() == []
    assert checkout.kinds(request) == LIFE
    assert name not in ids_in_data()
    assert bytes_anywhere(checkout.root, image, name.encode()) == []
    assert Path("params.yaml").read_text() == before
    events = checkout.desk.ledger.events()
    anchors = anchors_in_git(checkout.root) or []
    assert len(anchors) == 3  # promoted, purged, and the end of the run
    check_chain(events, anchors)
    promoted = checkout.desk.show(request).common(facts.Promotion)
    assert promoted is not None
    assert promoted.guarantee == "exact"
    assert checkout.repository.git("status", "--porcelain", "-uno") == ""
    assert Path(f"data/requests/certificates/{request}.json").exists()
    checkout.repository.dvc("repro", "split")
    assert name not in ids_in_data()
    assert weights_in(checkout.root) == {promoted.weights}
    assert figures_of_members(checkout.root) == set()

    # by another method the next one goes the same way, and no weights survive but those in production
    checkout.set(chain=["none"], inconclusive="promote")
    second = checkout.submit(*names(1, 1, 2)).id
    assert checkout.process() == []
    started = checkout.desk.show(second).common(facts.Attempt)
    assert started is not None
    assert started.base.weights == promoted.weights
    last = checkout.desk.show(second).common(facts.Promotion)
    assert last is not None
    assert last.guarantee == "approximate"
    assert weights_in(checkout.root) == {last.weights} != {promoted.weights}
    assert figures_of_members(checkout.root) == set()
    purge = Purge(checkout.root, load(), checkout.desk, {})
    for each in (request, second):
        assert [line for line in verify(purge, [checkout.desk.show(each)]) if not line.holds] == []


def test_what_was_erased_never_returns_over_six_requests_with_overlaps(
    checkout: Checkout, quick: Any
) -> None:
    gone: set[str] = set()
    trained_on: list[set[str]] = []

    def watched(target: str, tags: Any) -> str:
        """Run the stages, and see what their training and fine-tuning could see."""
        key: str = quick(target, tags)
        manifest = Manifest.read(Path("data/split/manifest.csv"))
        rows = [*manifest.indices("retain"), *manifest.indices("val")]
        trained_on.append({manifest.sample_ids[row] for row in rows})
        assert not trained_on[-1] & gone
        return key

    def asked(*ids: str, requester: str = "crm:1") -> str:
        gone.update(ids)
        return checkout.submit(*ids, requester=requester).id

    requests = [asked(*names(0, 1, 2, 3)), asked(*names(0, 3, 4))]
    assert checkout.process(watched) == []
    again = checkout.submit(*names(0, 1))
    assert str(again.state.status) == "duplicate"
    requests.append(asked(*names(1, 5)))
    assert checkout.process(watched) == []
    checkout.set(chain=["none"], inconclusive="promote")
    requests += [asked(*names(2, 8), requester="crm:3"), asked(*names(2, 8, 9), requester="crm:4")]
    assert checkout.process(watched) == []
    requests.append(asked(*names(1, 6)))
    assert checkout.process(watched) == []
    assert len(trained_on) == 4
    assert not gone & ids_in_data()
    assert {checkout.status(request) for request in requests} == {"closed"}
    # Whatever is put back into the source, under an erased id or with an erased image's pixels, stays out.
    Path("data/images", names(0, 1)[0]).write_bytes(Path("data/images", names(1, 7)[0]).read_bytes())
    checkout.repository.dvc("repro", "split")
    assert not gone & ids_in_data()


def test_a_second_request_for_the_same_sample_during_processing_is_covered(
    checkout: Checkout, quick: Any
) -> None:
    first = checkout.submit(*names(0, 1, 2))
    checkout.set(batch_limit=2)
    second = checkout.submit(*names(0, 2), requester="crm:2")
    assert checkout.process(quick) == []
    assert checkout.status(first.id) == "closed"
    assert checkout.kinds(second.id) == ["received", "validated", "covered"]
    assert checkout.process(quick) == []
    assert checkout.kinds(second.id)[-7:] == LIFE[-7:]
    audit = checkout.desk.show(second.id).common(facts.Audit)
    assert audit is not None
    assert audit.verdict == "not needed"


def test_nothing_is_begun_with_uncommitted_code(checkout: Checkout) -> None:
    checkout.submit(*names(0, 1))
    checkout.repository.append("tasks/train.py", "# changed\n")
    with pytest.raises(ExpungeError, match=r"tasks/train\.py differs from the last commit"):
        checkout.process()


def test_a_purge_can_be_asked_for_by_itself(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id
    with pytest.raises(ExpungeError, match=f"{request} is validated; its purge follows its promotion"):
        checkout.processor(quick).purge_now(request)

    def down(self: Purge, requests: Any) -> Any:
        raise UnavailableError("the remote does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Purge, "carry_out", down)
        (problem,) = checkout.process(quick)
    assert problem.endswith("waits: the remote does not answer")
    assert checkout.processor(quick).purge_now(request) == []
    assert checkout.kinds(request) == LIFE
    assert checkout.repository.git("status", "--porcelain", "-uno") == ""
    with pytest.raises(ExpungeError, match=f"{request} is closed, and no store is left to be searched"):
        checkout.processor(quick).purge_now(request)
    with pytest.raises(ExpungeError, match="is not in the ledger"):
        checkout.processor(quick).purge_now("20260101-00000000")


def test_the_chain_falls_back_to_retraining(checkout: Checkout, quick: Any) -> None:
    checkout.set(chain=["none", "reinit"])
    request = checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    methods = [attempt.method for attempt in checkout.desk.show(request.id).all_common(facts.Attempt)]
    assert methods == ["retrain"]  # one sample cannot reach a verdict, so nothing else is tried


def test_a_whole_class_can_be_forgotten(checkout: Checkout, quick: Any) -> None:
    wanted = {"class": ["2"]}
    request = checkout.submit(samples=wanted)
    assert checkout.process(quick) == []
    assert checkout.status(request.id) == "closed"
    assert not [name for name in ids_in_data() if name.startswith("train/2/")]
    assert json.loads(Path("data/base/weights.json").read_text())["classes"] == ["0", "1", "2"]


def test_a_hold_keeps_the_samples_until_it_is_released(checkout: Checkout, quick: Any) -> None:
    (name,) = names(0, 7)
    held = checkout.submit(name)
    checkout.desk.decide(facts.Held(by="legal", reason="a lawsuit"), held.id)
    other = checkout.submit(name, *names(0, 8), requester="crm:2")
    assert checkout.process(quick) == []
    assert checkout.status(held.id) == "validated"
    assert checkout.status(other.id) == "promoted"
    assert Path("data/images", name).exists()
    assert any("legal hold" in line for line in checkout.logged)
    quick("split", {})
    again = checkout.submit(*names(0, 8), requester="crm:3")  # the images are there, the split has no such
    assert checkout.process(quick) == []
    assert checkout.status(again.id) == "received"
    checkout.desk.decide(facts.Released(by="legal", reason="it is over"), held.id)
    assert checkout.process(quick) == []
    assert checkout.process(quick) == []
    assert checkout.status(held.id) == checkout.status(other.id) == "closed"
    assert checkout.status(again.id) == "duplicate"
    assert not Path("data/images", name).exists()
