"""How the flow that carries out requests runs the stages, beside plain ``dvc repro``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.schemas.objects import State

from flows.processing import _stages, process_requests
from tasks.core.errors import BusyError
from tasks.core.files import only_writer
from tasks.processing import repository as git
from tasks.processing.dvc_repro import StageFailedError, run_stages
from tasks.requests import events as facts
from tests.flows.project import Project
from tests.processing.conftest import Checkout, checkout, names, trained

__all__ = ["checkout", "trained"]

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TAGS = {"expunge.batch": "batch-1"}

Runner = Callable[[], str | None]


def plainly() -> str:
    return run_stages("train", TAGS)


@flow(persist_result=False)
def by_prefect() -> str:
    return _stages(retries=0, retry_delay=0)("train", TAGS)


def blocked_by(root: Path, output: str) -> None:
    """Note in DVC's own way that this process writes an output."""
    writer = {"pid": os.getpid(), "cmd": "dvc add data/images/jane.png"}
    (root / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {str(root / output): writer}, "read": {}}))


@pytest.mark.parametrize("run", [plainly, by_prefect])
def test_both_ways_to_run_the_stages_tell_a_colleague_at_work_from_a_failure(
    project: Project, run: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setattr("flows.processing.ROOT", project.root)
    (project.root / ".dvc/tmp").mkdir(exist_ok=True)
    blocked_by(project.root, "data/train/out")
    what = rf"^another command of DVC \({os.getpid()}\) is at work here; wait .* rm \.dvc/tmp/"
    with pytest.raises(BusyError, match=what) as caught:
        run()
    assert "jane" not in str(caught.value) + caplog.text
    (project.root / ".dvc/tmp/rwlock").unlink()
    project.write(train="echo 'expunge train: data/train is being written by process 7; wait'; exit 75")
    with pytest.raises(BusyError, match=r"^stage train: another process \(7\) is at work on the same"):
        run()
    project.write(train="echo 'expunge train: jane.png: Unable to acquire lock'; exit 2")  # its own word
    with pytest.raises(StageFailedError, match=r"^train: jane\.png: Unable to .* \(exit status 2\)$"):
        run()  # the whole of it is for a log of this checkout
    assert "jane" not in "".join(each.message for each in caplog.records if each.name == "prefect.task_runs")
    spool = (project.root / ".expunge/spool").glob("*/journal.jsonl")
    records = "".join(journal.read_text() for journal in spool)
    assert '"error": "StageFailedError"' in records
    assert "jane" not in records  # what a stage says of a batch may name a sample


def test_the_flow_passes_over_another_run_and_fails_for_what_needs_a_person(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.processing.ROOT", checkout.root)
    monkeypatch.setattr(git, "PATIENCE", 0.1)
    checkout.set(retries=0)
    request = checkout.submit(*names(0, 1)).id

    def broken(target: str, tags: Mapping[str, str]) -> str:
        raise StageFailedError(f"train: {names(0, 1)[0]} is damaged")

    monkeypatch.setattr("flows.processing._stages", lambda *_: broken)
    with only_writer(Path("pipeline")):
        assert ended()[:2] == ("Skipped", True)
    lock = checkout.root / ".git/index.lock"
    lock.touch()
    os.utime(lock, times=(0, 0))
    name, completed, message = ended()
    assert (name, completed) == ("Failed", False)
    assert message.endswith(f"delete the file: rm {lock}")
    lock.unlink()
    assert ended()[:2] == ("Failed", False)
    name, completed, message = ended()  # after its last try
    assert (name, completed) == ("Failed", False)
    assert message == f"request {request} failed and waits for a person: expunge show {request}"
    checkout.time = datetime.now(UTC)  # the flow goes by the machine's clock
    checkout.desk.decide(facts.Withdrawn(by="me", reason="asked"), request)
    assert ended()[1]


def ended() -> tuple[str, bool, str]:
    """The name of the state in which a run of the flow ends, whether that is success, and its message."""
    state: State[Any] = process_requests(retries=0, return_state=True)
    return str(state.name), state.is_completed(), str(state.message)
