"""What a person must learn of, by the command line: its exit status and its lines."""

from __future__ import annotations

import os
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
    (checkout.root / "data/split/images.npy").unlink()
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
