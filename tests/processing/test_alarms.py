"""What a person must learn of, by the command line: its exit status and its lines."""

from __future__ import annotations

import base64
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tasks import cli
from tasks.core.errors import BusyError
from tasks.core.files import only_writer
from tasks.output import Exit
from tasks.processing import dvc_repro
from tasks.processing import repository as git
from tasks.requests import events as facts
from tests.processing.conftest import Checkout, names
from tests.processing.quick import quick

__all__ = ["quick"]


@pytest.fixture
def carried_out(quick: Any, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The command line runs the stages in this process, and waits for nobody."""
    monkeypatch.setattr(dvc_repro, "run_stages", quick)
    monkeypatch.setattr(git, "PATIENCE", 0.1)
    return monkeypatch


def expunge(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


@pytest.mark.usefixtures("carried_out")
def test_only_another_processor_at_work_or_git_for_a_moment_is_passed_over(checkout: Checkout) -> None:
    request = checkout.submit(*names(0, 1)).id
    with only_writer(Path("pipeline")):
        skipped = expunge("process")
        assert expunge("purge", "run", request).exit_code == Exit.BAD_INPUT  # it was asked for by name
    assert skipped.exit_code == 0
    assert skipped.stderr.startswith("expunge: skipped: pipeline is being written by process ")
    lock = checkout.root / ".git/index.lock"
    lock.touch()
    assert expunge("process").exit_code == 0
    os.utime(lock, times=(0, 0))
    left = expunge("process")
    assert left.exit_code == Exit.BAD_INPUT
    assert left.stderr.startswith(f"expunge: {lock} is there: ")
    assert left.stderr.endswith(f"delete the file: rm {lock}\n")
    assert checkout.kinds(request) == ["received", "validated"]


def test_a_colleagues_dvc_is_no_failure_however_long_it_takes(
    checkout: Checkout, carried_out: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id

    def busy(target: str, tags: Any) -> str:
        raise BusyError("another command of DVC is at work here")

    for _ in range(4):
        (problem,) = checkout.process(busy)
        assert problem.endswith("waits: another command of DVC is at work here")
    shutil.rmtree(checkout.root / "data/split/images")
    waits = checkout.process(busy)
    assert waits[0].startswith("data/split is incomplete and waits to be made again: another command of DVC")
    assert "failed" not in checkout.kinds(request)


def test_after_its_last_try_a_request_makes_every_run_exit_with_3_until_somebody_decides(
    checkout: Checkout, carried_out: pytest.MonkeyPatch
) -> None:
    checkout.set(retries=1)
    request = checkout.submit(*names(0, 1)).id

    def broken(target: str, tags: Any) -> str:
        raise dvc_repro.StageFailedError(f"train: {names(0, 1)[0]} is damaged")

    carried_out.setattr(dvc_repro, "run_stages", broken)
    for _ in range(2):
        assert expunge("process").exit_code == Exit.ATTENTION
    last = expunge("process")  # nothing is tried any more
    assert checkout.kinds(request).count("failed") == 2
    assert last.exit_code == Exit.ATTENTION
    assert f"request {request} failed and waits for a person: expunge show {request}" in last.stderr
    assert names(0, 1)[0] in expunge("show", request).stdout
    checkout.time = datetime.now(UTC)  # the command line goes by the machine's clock
    checkout.desk.decide(facts.Refused(by="me", reason="settled otherwise"), request)
    assert expunge("process").exit_code == 0


@pytest.mark.usefixtures("carried_out")
def test_what_a_purge_leaves_is_told_without_names_and_its_faults_until_they_are_mended(
    checkout: Checkout,
) -> None:
    (name,) = names(0, 1)
    request = checkout.submit(name).id
    Path("data/notes.txt").write_text(f"{name} is blurred\n")
    Path("other.dvc").write_text("outs: [\n")
    told = expunge("process")
    assert told.exit_code == Exit.ATTENTION
    assert checkout.status(request) == "closed"
    assert "workspace" in told.stderr
    assert "kept-reported" in told.stderr
    assert "DVC pointers, .dvc files: not-searched, 1, damaged; expunge verify erasure" in told.stderr
    assert name not in told.stderr
    assert expunge("process").exit_code == 0  # told once by whoever found it
    status = expunge("status", "--no-reconcile")
    assert status.exit_code == Exit.ATTENTION
    (line,) = [line for line in status.stdout.splitlines() if line.startswith("DVC pointers")]
    assert line.endswith(
        f"is not searched, says the purge of 1 batch(es): expunge verify erasure {request} shows what, by "
        f"name; mend it, then expunge purge run {request}"
    )
    assert "notes.txt" in expunge("verify", "erasure", request).stdout
    assert expunge("purge", "run", request).exit_code == Exit.ATTENTION  # nothing is mended yet
    Path("other.dvc").unlink()
    Path("data/notes.txt").unlink()
    assert expunge("purge", "run", request).exit_code == 0
    assert expunge("status", "--no-reconcile").exit_code == 0
    assert expunge("purge", "run", request).exit_code == Exit.BAD_INPUT  # nothing is left to search for

    # what the searches and the checks of a certificate say is their exit status
    assert expunge("verify", "erasure", request).exit_code == 0
    Path("data/copy.txt").write_text(name)
    left = expunge("verify", "erasure", request)
    assert left.exit_code == Exit.NOT_VERIFIED
    assert left.stderr == f"expunge: request {request}: not all is known to be gone, see what does not hold\n"
    certificate = Path(f"data/requests/certificates/{request}.json")
    assert expunge("verify", "certificate", str(certificate)).exit_code == 0
    other = expunge("verify", "certificate", str(certificate), "--public-key", "ab" * 32)
    assert other.exit_code == Exit.NOT_VERIFIED
    envelope = json.loads(certificate.read_text())
    payload = base64.b64decode(envelope["payload"]).replace(b'"exact"', b'"other"')
    certificate.write_text(json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}))
    assert expunge("verify", "certificate", str(certificate)).exit_code == Exit.NOT_VERIFIED


def test_a_repository_that_git_will_not_read_for_its_owner_is_one_line(
    checkout: Checkout, carried_out: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1)).id
    carried_out.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own switch for its tests
    for command in (["process"], ["verify", "ledger"]):
        refused = expunge(*command)
        assert refused.exit_code == Exit.BAD_INPUT
        (line,) = refused.stderr.splitlines()
        assert "dubious ownership" in line
        assert f"git config --global --add safe.directory {checkout.root}" in line
    assert checkout.kinds(request) == ["received", "validated"]
