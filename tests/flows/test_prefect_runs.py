"""What Prefect's server keeps of a sample's name is found, and goes with the run."""

from __future__ import annotations

import pytest
from prefect import flow, get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run

from tasks.processing.prefect_runs import FlowRuns
from tasks.requests.keys import reference
from tasks.requests.search import Wanted
from tests.flows.project import until

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
    wanted = [Wanted(KEY, names, frozenset(), frozenset())]
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


def test_a_run_that_is_at_work_keeps_its_record(served: dict[str, str]) -> None:
    runs = FlowRuns(served)
    own = purges.with_options(validate_parameters=False)(runs)
    assert own in [run["id"] for run in runs.runs()]
    runs.delete(own)
    runs.delete(own)
    assert own not in [run["id"] for run in runs.runs()]
