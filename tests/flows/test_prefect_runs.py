"""What Prefect's server keeps of a sample's name is found, and goes with the run."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run

from tasks.core.errors import UnavailableError
from tasks.erasure.checklist import Outcome
from tasks.erasure.identity import wanted_of
from tasks.erasure.places import Places
from tasks.erasure.purge import Purge
from tasks.erasure.search import Sought, Wanted
from tasks.erasure.stores.prefect import ARTIFACT, EVENT, FLOWS, PAGE, PATIENCE, FlowRuns
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.keys import reference
from tasks.requests.states import Status
from tests.flows.project import until
from tests.requests.conftest import catalogue, clock, desk, root, submission, without

__all__ = ["catalogue", "clock", "desk", "root"]

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY = b"k" * 32


LOGGED = ["train/dog/other.png", "/srv/images/train/cat/logged.png"]


@flow(name="purges-itself")
def purges(runs: FlowRuns) -> str:
    runs.delete(str(flow_run.id))
    return str(flow_run.id)


@flow(name="says-a-name")
def says(name: str, line: int) -> None:
    get_run_logger().info("After %s comes %s, at last", len(name), LOGGED[line])


def test_names_in_parameters_and_logs_are_found_and_deleted(served: dict[str, str]) -> None:
    names = frozenset(reference(KEY, "id", name) for name in ("train/cat/given.png", "train/cat/logged.png"))
    wanted = Sought.of_requests([Wanted(KEY, names, frozenset(), frozenset())], roots=["/srv/images"])
    runs = FlowRuns(served)
    assert list(runs.search(wanted)) == []
    says("train/cat/given.png", 0)
    says("nothing", 0)
    says("nothing", 1)
    APILogWorker.drain_all()
    until(lambda: len(list(runs.search(wanted))) == 2, seconds=30, what="the log")
    hits = list(runs.search(wanted))
    assert sorted(hit.why.split()[0] for hit in hits) == ["parameters", "the"]
    for hit in hits:
        runs.delete(hit.item)
    until(lambda: list(runs.search(wanted)) == [], seconds=30, what="the deletion of the log")


@flow(name="brings")
def brings(submission: dict[str, Any]) -> str:
    return str(flow_run.id)


def brought(desk: Desk, catalogue: Catalogue) -> tuple[str, str, Status | None]:
    """Submit a request by number as a flow does; return its id, its flow run's and its status."""
    content = submission(samples={"index": [3]})
    run = brings(json.loads(content))
    request = desk.submit(content, "p.json", catalogue, channel="prefect", flow_run=run).request
    return request.id, run, request.state.status


def test_runs_that_brought_a_request_or_its_duplicates_go_with_it(
    served: dict[str, str], desk: Desk, catalogue: Catalogue
) -> None:
    first, first_run, _ = brought(desk, catalogue)
    _, second_run, status = brought(desk, catalogue)
    assert status == "behind"
    other = brings({"samples": {"index": [4]}})
    runs = FlowRuns(served)
    found = runs.search(wanted_of([desk.show(first)], desk))  # other tests' runs may name the sample, too
    hits = [hit for hit in found if hit.why.endswith("brought the request")]
    assert {hit.item for hit in hits} == {first_run, second_run}
    for hit in hits:
        runs.delete(hit.item)
    assert other in [run["id"] for run in runs.runs()]


def test_the_run_of_a_duplicate_goes_if_its_samples_were_purged_before(
    served: dict[str, str], desk: Desk, catalogue: Catalogue, root: Path
) -> None:
    first, first_run, _ = brought(desk, catalogue)
    purge = Purge(root, cast("Any", None), desk, served)
    _, early, _ = brought(desk, catalogue)
    purge.delete_flow_runs_of_duplicates()
    with desk.writing() as writer:
        for kind in ("batched", "started", "audited", "promoted", "purged", "closed"):
            writer.append(facts.KINDS[kind].model_validate({"batch": "batch-1"}), first)
    # its samples are gone from the data by now
    erased = without(catalogue, "train/3.png")
    _, late, status = brought(desk, erased)
    assert status == "duplicate"

    def there() -> set[str]:
        return {run["id"] for run in FlowRuns(served).runs()} & {first_run, early, late}

    assert there() == {first_run, early, late}
    purge.delete_flow_runs_of_duplicates()
    assert there() == {first_run}
    purge.delete_flow_runs_of_duplicates()
    FlowRuns(served).delete(first_run)


def test_only_runs_of_our_own_flows_are_ours(served: dict[str, str]) -> None:
    """Also when there are more than a page of them, and one holds a number that no server sends."""
    name = "train/cat/page.png"
    wanted = [Wanted(KEY, frozenset({reference(KEY, "id", name)}), frozenset(), frozenset())]
    own = flow(name="submit-request")(says.fn)
    runs = FlowRuns(served)
    says(name, 0)
    created = [own_run(served, own, {"name": name, "line": 0}) for _ in range(PAGE + 20)]
    hits = [hit for hit in runs.search(wanted) if "parameters" in hit.why]
    assert {hit.item for hit in hits if not hit.foreign} == set(created)
    assert len([hit for hit in hits if hit.foreign]) == 1
    for hit in runs.search(wanted):
        runs.delete(hit.item)
    until(lambda: not [hit for hit in runs.search(wanted) if "param" in hit.why], seconds=60, what="deletion")


def own_run(served: dict[str, str], function: Any, parameters: dict[str, Any]) -> str:
    """Create a run of a flow, which does not begin; return its id."""
    flow_id = posted(served, "flows", {"name": function.name})["id"]
    body = {"flow_id": flow_id, "parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(posted(served, "flow_runs", body)["id"])


def posted(served: dict[str, str], path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send to the server, again while its database is busy with the runs before."""
    answers: list[requests.Response] = []

    def accepted() -> bool:
        answers.append(requests.post(f"{served['PREFECT_API_URL']}/{path}/", json=body, timeout=60))
        return answers[-1].ok

    until(accepted, seconds=120, what=f"the server to take {path}")
    return cast("dict[str, Any]", answers[-1].json())


TOLD = ["see train/cat/in-artifact.png", "nothing"]


@flow(name="submit-request")
def makes_artifacts(name: str) -> str:
    for number, text in enumerate(TOLD):
        create_markdown_artifact(f"# {len(name)}\n\n{text}", key=f"told-{number}")
    return str(flow_run.id)


def test_an_artifact_that_names_a_sample_goes_and_others_of_its_run_stay(served: dict[str, str]) -> None:
    name = "train/cat/in-artifact.png"
    runs, sought = FlowRuns(served), Sought.of_samples([name])
    own = makes_artifacts("nothing")
    foreign = flow(name="of-others")(makes_artifacts.fn)("nothing")
    hits = {hit.item: hit for hit in runs.search(sought) if hit.item.startswith(ARTIFACT)}
    assert sorted((hit.why.split()[5], hit.foreign) for hit in hits.values()) == sorted(
        [(own, False), (foreign, True)]
    )
    for hit in hits.values():
        if not hit.foreign:
            runs.delete(hit.item)
            runs.delete(hit.item)
    (left,) = [hit for hit in runs.search(sought) if hit.item.startswith(ARTIFACT)]
    assert left.foreign
    kept = [each for each in runs._all("/artifacts/filter", sort="ID_DESC") if each["flow_run_id"] == own]
    assert [each["key"] for each in kept] == ["told-1"]
    runs.delete(left.item)
    whole = makes_artifacts(name)  # its parameters name the sample, too
    for hit in runs.search(sought):
        runs.delete(hit.item)
    assert all(hit.item.startswith(EVENT) for hit in runs.search(sought))
    assert whole not in [run["id"] for run in runs.runs()]


def test_events_that_name_a_sample_are_told_on_whatever_page_and_stay(served: dict[str, str]) -> None:
    name = "train/cat/in-event.png"
    runs, sought = FlowRuns(served), Sought.of_samples([name])
    resource = {"prefect.resource.id": "expunge.test"}
    occurred = datetime.now(UTC) - timedelta(minutes=1)
    events: Any = [
        {
            "id": str(uuid.uuid4()), "event": "expunge.told", "resource": resource,
            "occurred": (occurred - timedelta(seconds=number)).isoformat(),
            "payload": {"text": f"see {name}" if number in {0, 119} else "nothing"},
        }
        for number in range(120)
    ]  # fmt: skip
    answer = requests.post(f"{served['PREFECT_API_URL']}/events", json=events, timeout=60)
    assert answer.ok
    expected = {f"{EVENT}{events[number]['id']}" for number in (0, 119)}
    until(lambda: {hit.item for hit in runs.search(sought)} == expected, seconds=60, what="the events")
    assert "events" not in runs.unread
    for hit in runs.search(sought):
        detail = Places(Path(), Path("data/images"), "", served, cast("Any", None)).fate(runs, hit)
        assert detail.outcome is Outcome.KEPT_REPORTED


@contextmanager
def broken_at(*numbers: int, of: int) -> Iterator[str]:
    """A server that is up and cannot send some of its flow runs; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, True)

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "flow_runs" not in self.path:
                self._answer(200, {"events": []} if "events" in self.path else [])
                return
            which = range(asked["offset"], min(of, asked["offset"] + asked["limit"]))
            broken = any(number in which for number in numbers)
            runs = [{"id": str(n), "flow_id": "f", "name": "x", "parameters": {}} for n in which]
            self._answer(500 if broken else 200, [] if broken else runs)

        def _answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


def test_a_record_that_the_server_cannot_send_ends_no_search() -> None:
    with broken_at(3, 401, of=450) as address:
        runs = FlowRuns({"PREFECT_API_URL": address})
        assert len(list(runs.runs())) == 448
        assert set(runs.unread) == {"/flow_runs/filter, record 3", "/flow_runs/filter, record 401"}
        assert runs.search([]) == []
    with broken_at(*range(100), of=100) as address, pytest.raises(UnavailableError):
        list(FlowRuns({"PREFECT_API_URL": address}).runs())


def test_the_names_of_our_flows_are_those_of_the_flows() -> None:
    import importlib

    from prefect.flows import Flow

    rooms = ("approval", "intake", "pipeline", "processing", "production")
    found = [value for room in rooms for value in vars(importlib.import_module(f"flows.{room}")).values()]
    assert {value.name for value in found if isinstance(value, Flow)} == FLOWS


@contextmanager
def busy(times: int) -> Iterator[str]:
    """A server that answers 503 some times before it lists no runs; its address."""
    left = [times]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            left[0] -= 1
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503 if left[0] >= 0 else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_is_busy_is_asked_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.erasure.stores.prefect.PATIENCE", PATIENCE.new(backoff_factor=0))
    with busy(PATIENCE.status or 0) as address:
        assert list(FlowRuns({"PREFECT_API_URL": address}).runs()) == []
    with (
        busy((PATIENCE.status or 0) + 1) as address,
        pytest.raises(UnavailableError, match=f"{address} answers 503"),
    ):
        list(FlowRuns({"PREFECT_API_URL": address}).runs())


def test_a_run_that_is_at_work_keeps_its_record(served: dict[str, str]) -> None:
    runs = FlowRuns(served)
    own = purges.with_options(validate_parameters=False)(runs)
    assert own in [run["id"] for run in runs.runs()]
    runs.delete(own)
    runs.delete(own)
    assert own not in [run["id"] for run in runs.runs()]
