from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from flows.approval import approve_request
from tasks.core.errors import ExpungeError
from tasks.processing.batches import choose
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import now, stamp
from tasks.requests.desk import Desk
from tests.flows.project import until
from tests.flows.site import Site
from tests.functional.repository import Repository
from tests.processing.conftest import names, trained
from tests.requests.conftest import catalogue, clock, desk, root, submission

__all__ = ["catalogue", "clock", "desk", "root", "trained"]

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Asked:
    """A run of the flow that waits for its form, in a thread of its own."""

    def __init__(self, request: str) -> None:
        self.state: Any = None
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=lambda: context.run(self._run, request))
        self.thread.start()

    def _run(self, request: str) -> None:
        self.state = approve_request(request, wait_seconds=60, return_state=True)

    def paused(self) -> UUID:
        def found() -> list[Any]:
            with get_client(sync_client=True) as client:
                runs = client.read_flow_runs()
            return [run for run in runs if run.state_name == "Paused"]

        until(found, seconds=60, what="the pause")
        return UUID(str(found()[0].id))

    def told(self, run: UUID) -> str:
        """What the form says above its fields."""
        with get_client(sync_client=True) as client:
            state: Any = client.read_flow_run(run).state
            key = state.state_details.run_input_keyset["description"]
            return str(json.loads(client.read_flow_run_input(run, key)))

    def answer(self, run: UUID, **values: str) -> None:
        with get_client(sync_client=True) as client:
            done = client.resume_flow_run(run, run_input=values)
        if done.status != "ACCEPT" and str(getattr(done.status, "value", "")) != "ACCEPT":
            raise ExpungeError(str(done.details))


@pytest.fixture
def at_desk(desk: Desk, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow works in the checkout of the desk, and on its ledger."""
    monkeypatch.setattr("flows.approval.ROOT", root)
    monkeypatch.setattr("flows.approval.Desk.open", lambda *_: desk)
    monkeypatch.setattr("flows.approval.load_settings", lambda: desk.settings)


@pytest.fixture
def asked(desk: Desk, catalogue: Catalogue, at_desk: None) -> Iterator[tuple[str, Asked]]:
    request = desk.submit(submission(), "r.json", catalogue, channel="cli").request.id
    waiting = Asked(request)
    yield request, waiting
    waiting.thread.join(90)


def test_a_person_approves_in_a_form_that_is_checked_first(asked: tuple[str, Asked], desk: Desk) -> None:
    request, waiting = asked
    run = waiting.paused()
    assert waiting.told(run) == f"Request {request}: 1 sample(s), ground consent-withdrawn, due 2026-06-01"
    with pytest.raises((ExpungeError, PrefectHTTPStatusError)):
        waiting.answer(run, decision="perhaps", by="me", reason="so")
    with pytest.raises((ExpungeError, PrefectHTTPStatusError)):
        waiting.answer(run, decision="approve", by="", reason="so")
    assert str(desk.show(request).state.status) == "validated"
    waiting.answer(run, decision="approve", by="officer", reason="checked")
    waiting.thread.join(60)
    assert waiting.state.is_completed()
    decided = desk.show(request)
    assert str(decided.state.status) == "approved"
    assert decided.events[-1].fact == facts.Approved(by="officer", reason="checked")


def test_without_an_approval_nothing_is_batched_where_it_is_asked_for(
    desk: Desk, catalogue: Catalogue, clock: Any
) -> None:
    strict = desk.settings.model_copy(update={"approval": True, "batch_size": 1})
    guarded = Desk(desk.ledger, desk.keys, strict, clock)
    request = guarded.submit(submission(), "r.json", catalogue, channel="cli").request
    assert choose(guarded.ready(), strict, clock() + timedelta(days=2)) == []
    guarded.decide(facts.Approved(by="me"), request.id)
    assert [each.request for each in choose(guarded.ready(), strict, clock())] == [request.id]


@pytest.mark.usefixtures("at_desk")
def test_a_request_that_cannot_be_approved_is_not_asked_about(desk: Desk, catalogue: Catalogue) -> None:
    request = desk.submit(submission(), "r.json", catalogue, channel="cli").request.id
    desk.decide(facts.Refused(by="me", reason="a copy"), request)
    state = approve_request(request, return_state=True)
    assert state.is_failed()
    assert "is refused" in str(state.message)


@pytest.mark.usefixtures("at_desk")
def test_nothing_is_asked_of_a_ledger_whose_requests_are_carried_out_elsewhere(
    desk: Desk, catalogue: Catalogue
) -> None:
    request = desk.submit(submission(), "r.json", catalogue, channel="cli").request.id
    desk.record(facts.Settled(checkout="0" * 32, host="other", commit="f" * 40, by="me"))
    state = approve_request(request, wait_seconds=1, return_state=True)
    assert state.is_failed()
    assert str(state.message).startswith("the ledger is that of another project")


def suspended() -> dict[str, UUID]:
    """Runs that wait for a person without a process, by request."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs()
    return {str(run.parameters["request"]): run.id for run in runs if run.state_name == "Suspended"}


def test_every_request_is_asked_about_once_and_no_process_waits(
    trained: Repository, served: dict[str, str], tmp_path: Path
) -> None:
    site = Site(trained, tmp_path, served, EXPUNGE_TRACKING="off")
    site.repository.change({"requests.approval": True})
    site.repository.commit("approval is asked for")
    site.deploy()
    requests = []
    for number in (1, 2):
        path = site.repository.root / f"{number}.json"
        path.write_bytes(submission(samples={"id": names(0, number)}, received_at=stamp(now())))
        (receipt,) = site.json("submit", path.name)
        requests.append(receipt["request"])
    first, second = requests
    assert site.run("process-requests").startswith("Completed")
    site.work()
    runs = suspended()
    assert sorted(runs) == sorted(requests)

    # one is approved in Prefect, the other elsewhere
    with get_client(sync_client=True) as client:
        refused = client.resume_flow_run(
            runs[first], run_input={"decision": "approve", "by": " ", "reason": "-"}
        )
        assert refused.status.value == "REJECT"
        answer = {"decision": "refuse", "by": "officer", "reason": "the contract still runs"}
        assert client.resume_flow_run(runs[first], run_input=answer).status.value == "ACCEPT"
    site.expunge("refuse", second, "--reason", "a mistake")
    site.work()
    assert {entry["status"] for entry in site.json("list", "--all")} == {"refused"}
    assert site.json("show", first)["events"][-1]["body"] == {"by": "officer", "reason": answer["reason"]}
    assert site.run("process-requests").startswith("Completed")
    assert suspended() == {}
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(runs[first]).state_name == "Completed"
        assert client.read_flow_run(runs[second]).state_name == "Cancelled"
