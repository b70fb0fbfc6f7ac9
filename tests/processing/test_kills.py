"""Whatever ends the process, the next one goes on: one effect each, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.erasure import originals as _originals
from tasks.erasure import purge
from tasks.erasure.checklist import Line
from tasks.erasure.models import Models
from tasks.erasure.stores import dvc as stores
from tasks.processing import parameters, production
from tasks.processing import processor as processing
from tasks.processing.batches import Batch
from tasks.processing.repository import Repository
from tasks.requests import events as facts
from tasks.requests import high_water
from tasks.requests.chain import check_chain
from tasks.requests.commits import anchors_in_git
from tasks.requests.production import BASE
from tasks.requests.suppression import Erased
from tasks.samples.table import SPLIT
from tests.flows.project import until
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick
from tests.tracking.test_sender import free_port

__all__ = ["quick"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


def group_exists(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


POINTS: list[tuple[Any, str]] = [
    (processing, "open_batch"),
    (parameters, "override"),
    (processing, "decide"),
    (production, "take_over"),
    (production, "write_text"),
    (Erased, "write"),
    (high_water, "_write"),
    (Repository, "commit"),
    (Batch, "record"),
    (purge.Purge, "carry_out"),
    (purge.Purge, "_split_again"),
    (_originals, "remove"),
    (processing, "certify"),
]


LASTING = {"take_over", "write", "_write", "commit", "carry_out", "remove"}
"""What has an effect outside the ledger: there a kill after it is another case than one before the next."""


def dying(function: Callable[..., Any], at: int, *, after: bool) -> Callable[..., Any]:
    """Return the function with a kill before or after its call number ``at``, from 1."""
    calls = [0]

    def called(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at and not after:
            raise Killed
        result = function(*arguments, **named)
        if calls[0] == at:
            raise Killed
        return result

    return called


@pytest.mark.parametrize(
    ("where", "name", "after"),
    [(*point, False) for point in POINTS] + [(*point, True) for point in POINTS if point[1] in LASTING],
)
def test_a_kill_at_any_step_is_made_good(
    checkout: Checkout, quick: Any, where: Any, name: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [checkout.submit(*names(0, 1, 2)).id, checkout.submit(*names(0, 2, 3)).id]
    for at in range(1, 20):  # every call of it
        with monkeypatch.context() as patch:
            patch.setattr(where, name, dying(getattr(where, name), at, after=after))
            try:
                assert checkout.process(quick) == []
                break
            except Killed:
                continue
    assert at > 1, "it was never called"
    assert checkout.process(quick) == []
    gone = names(0, 1, 2, 3)
    for request in requests:
        kinds = Counter(checkout.kinds(request))
        assert checkout.status(request) == "closed"
        assert {kind: count for kind, count in kinds.items() if count > 1} == {}
    assert not [path for path in gone if Path("data/images", path).exists()]
    listed = high_water.read_checked(Path("data/requests/erased.txt"), checkout.keys)
    assert len(listed.lines) == len(set(listed.lines)) == 3 * len(gone)
    assert all(map(listed.naming(checkout.keys), gone))
    assert (checkout.keys.folder / high_water.MARK).read_text() == listed.text
    subjects = checkout.repository.git("log", "--format=%s").splitlines()
    assert sum(subject.startswith("Forget") for subject in subjects) == 1
    promotion = checkout.desk.ledger.last((facts.Promotion.kind,))
    assert promotion is not None
    assert production.digest_of(BASE) == promotion.raw["weights"]
    assert not processing.IDS_FILE.exists()
    check_chain(checkout.desk.ledger.events(), anchors_in_git(checkout.root) or [])


def test_a_split_that_a_kill_left_half_away_is_made_again(checkout: Checkout, quick: Any) -> None:
    request = checkout.submit(*names(0, 1)).id

    def cut_short(target: str, tags: Any) -> str:
        (SPLIT / "images/slots.csv").unlink()
        for name in ("samples.csv", "classes.json"):
            (SPLIT / name).unlink()
        raise Killed

    with pytest.raises(Killed):
        checkout.process(cut_short)
    Path("data/requests/inbox").mkdir(parents=True, exist_ok=True)
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    assert "failed" not in checkout.kinds(request)


def test_an_older_list_is_refused_also_if_nothing_is_to_be_done(checkout: Checkout, quick: Any) -> None:
    checkout.submit(*names(0, 1))
    assert checkout.process(quick) == []
    assert checkout.process(quick) == []
    Path("data/requests/erased.txt").write_text(Erased(()).text)
    with pytest.raises(ExpungeError, match="suppression restore"):
        checkout.process(quick)


def test_sigkill_in_a_stage_leaves_the_users_parameters_to_be_put_back(checkout: Checkout) -> None:
    before = Path("params.yaml").read_text()
    checkout.set(batch_hours=0)
    request = checkout.submit(*names(0, 1), received_at="2026-05-01T00:00:00Z")
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", "process"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        env=checkout.repository.environment,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "tasks.retrain" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not group_exists(process.pid), what="the end of the group; DVC asks for its processes")
    text = Path("params.yaml").read_text()
    assert "start: base" in text
    assert checkout.status(request.id) == "running"
    checkout.time = datetime.now(UTC)  # the command line goes by the machine's clock
    assert checkout.process() == []
    assert checkout.status(request.id) == "closed"
    assert "start: base" not in Path("params.yaml").read_text()
    assert before.count("\n") == Path("params.yaml").read_text().count("\n")
    assert checkout.kinds(request.id).count("started") == 1


def test_a_failed_stage_is_tried_again_and_then_waits_for_a_person(checkout: Checkout, quick: Any) -> None:
    from tasks.core.errors import ExpungeError

    request = checkout.submit(*names(0, 1)).id

    def broken(target: str, tags: Any) -> str:
        raise ExpungeError("no space left")

    for _ in range(5):
        assert checkout.process(broken) != []  # from the first failure on, and for as long as nobody looks
    kinds = checkout.kinds(request)
    assert kinds.count("failed") == 3
    assert checkout.status(request) == "failed"
    assert any("waits for a person" in line for line in checkout.logged)
    checkout.desk.decide(facts.Retried(by="me"), request)
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"


@pytest.mark.parametrize("deletions", [0, 1, 4])
def test_a_purge_that_was_killed_half_way_still_finds_all_that_was_made_of_the_samples(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    told: list[set[str]] = []
    left = [deletions]
    delete = stores.Objects.delete

    def mlflow(self: Models, requests: Any, void: set[str], account: Any) -> list[Line]:
        told.append(void)
        if deletions == 0 and len(told) == 1:
            raise Killed
        return []

    def limited(self: stores.Objects, item: str) -> None:
        if len(told) == 1 and left[0] == 0:
            raise Killed
        left[0] -= 1
        delete(self, item)

    monkeypatch.setattr(Models, "delete", mlflow)
    monkeypatch.setattr(stores.Objects, "delete", limited)
    request = checkout.submit(*names(0, 1)).id
    with pytest.raises(Killed):
        checkout.process(quick)
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    first, second = told
    assert len(first) >= 5  # the split's three, weights, logits
    assert second == first if deletions == 0 else second <= first
    cache = stores.DvcCache(checkout.root)
    for md5 in first:
        with pytest.raises(FileNotFoundError):
            cache.read(md5)


def test_an_outage_of_mlflow_is_no_failure_however_long_it_lasts(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout.processor()._adopt()
    request = checkout.submit(*names(0, 1)).id
    checkout.repository.change({"tracking.uri": f"http://127.0.0.1:{free_port()}"})
    checkout.repository.git("commit", "--quiet", "--message", "a server", "--", "params.yaml")
    monkeypatch.setenv("EXPUNGE_TRACKING", "on")
    for _ in range(5):
        (problem,) = checkout.process(quick)
        assert "waits: MLflow does not answer" in problem
    assert checkout.status(request) == "audited"
    assert checkout.kinds(request).count("started") == 1
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    assert checkout.process(quick) == []
    assert checkout.status(request) == "closed"
    assert "failed" not in checkout.kinds(request)


def test_a_second_scheduler_finds_the_door_locked(checkout: Checkout, quick: Any) -> None:
    from tasks.core.errors import BusyError
    from tasks.core.files import only_writer

    checkout.submit(*names(0, 1))
    command = [sys.executable, "-m", "tasks.cli", "process"]
    with only_writer(Path("pipeline")):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=checkout.repository.environment
        )
        with pytest.raises(BusyError), only_writer(Path("pipeline")):
            pass
    assert done.returncode == 0  # it is no alarm that the work of the run before takes long
    assert done.stderr.startswith("expunge: skipped: pipeline is being written by process ")
    assert checkout.desk.requests()[0].state.status == "validated"
