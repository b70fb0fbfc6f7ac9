from __future__ import annotations

import json
import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.client.schemas.objects import State

from flows.intake import submit_request
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.request import Request
from tasks.requests.settings import load_settings
from tests.requests.conftest import root, submission

__all__ = ["root"]

PROJECT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def requests(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    shutil.copy(PROJECT / "params.yaml", root)
    monkeypatch.setattr("flows.intake.ROOT", root)
    monkeypatch.setenv("EXPUNGE_KEYS", str(tmp_path / "keys"))
    monkeypatch.chdir("/")

    def found() -> list[Request]:
        monkeypatch.chdir(root)
        return Desk.open(load_settings(), {"EXPUNGE_KEYS": str(tmp_path / "keys")}, root).requests()

    return found


def run(**changes: object) -> State[Any]:
    return cast("State[Any]", submit_request(json.loads(submission(**changes)), return_state=True))


def test_a_request_reaches_the_ledger_with_the_run_that_brought_it(requests: Any) -> None:
    state = run()
    assert state.is_completed()
    (request,) = requests()
    assert state.message == f"request {request.id}: validated"
    received = request.received
    assert received.channel == "prefect"
    assert received.flow_run is not None
    assert received.flow_run.id == str(state.state_details.flow_run_id)
    assert request.id.endswith(received.flow_run.id[:8])


def test_a_bad_request_fails_the_run_and_says_why_without_the_values(requests: Any) -> None:
    state = run(requester="Jane Doe", ground="why")
    assert state.is_failed()
    (request,) = requests()
    assert request.state.status == "rejected"
    assert str(state.message).startswith(
        f"request {request.id} was rejected: requester: must be an opaque reference"
    )
    assert "Jane" not in str(state.message)


def test_a_request_is_received_while_the_data_cannot_be_read(requests: Any, root: Path) -> None:
    (root / "data/split/samples.csv").unlink()
    state = run()
    assert state.is_completed()
    (request,) = requests()
    assert state.message == f"request {request.id}: received"
    assert request.due_at is not None
    assert request.due_at.startswith("2026-06-01")


def test_a_ledger_whose_requests_are_carried_out_elsewhere_takes_none(
    requests: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run().is_completed()
    with chdir(root):
        desk = Desk.open(load_settings(), {"EXPUNGE_KEYS": str(tmp_path / "keys")}, root)
        desk.record(facts.Settled(checkout="0" * 32, host="other", commit="f" * 40, by="me"))
    state = run()
    assert state.is_failed()
    assert str(state.message).startswith("the ledger is that of another project")
    assert len(requests()) == 1
