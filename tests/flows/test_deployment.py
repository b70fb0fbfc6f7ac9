"""``prefect.yaml`` on a real server: deployed, run by a real worker, cancelled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from tasks.requests.ledger import Ledger
from tests.flows.project import MARKED_SLEEP, Project, alive, until

NAME = "unlearning-pipeline/unlearning-pipeline"

pytestmark = [
    pytest.mark.usefixtures("server", "deployed"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Prefect:
    """The ``prefect`` command in the checkout."""

    def __init__(self, checkout: Project, environment: dict[str, str]) -> None:
        self._where: dict[str, Any] = {"cwd": checkout.root, "env": environment}

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prefect", *arguments]
        where = self._where | {"env": self._where["env"] | variables}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **where)

    @contextmanager
    def worker(self) -> Iterator[None]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "expunge"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._where
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)

    def submit(self, *parameters: str) -> UUID:
        arguments = [part for parameter in parameters for part in ("--param", parameter)]
        done = self("deployment", "run", NAME, *arguments)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stdout.splitlines() if "UUID" in line]
        return UUID(line.rpartition(" ")[2])


@pytest.fixture(scope="module")
def prefect(checkout: Project, served: dict[str, str]) -> Prefect:
    return Prefect(checkout, served)


@pytest.fixture(scope="module")
def deployed(prefect: Prefect) -> None:
    for arguments in (
        ["work-pool", "create", "expunge", "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all"],
    ):
        done = prefect(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


def state_of(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        return str(client.read_flow_run(run).state_name)


def test_the_server_has_schedule_limit_parameters_and_description(checkout: Project) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(NAME)
    (schedule,) = deployment.schedules
    assert schedule.active
    assert schedule.schedule.model_dump(include={"cron", "timezone"}) == {
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
    }
    assert deployment.global_concurrency_limit is not None
    assert deployment.global_concurrency_limit.limit == 1
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
    assert deployment.work_pool_name == "expunge"
    assert deployment.tags == ["expunge", "unlearning"]
    assert deployment.description is not None
    assert deployment.description.startswith("Make a classifier forget")
    assert deployment.enforce_parameter_schema
    assert deployment.pull_steps == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(checkout.root)}}
    ]


@pytest.mark.parametrize("parameters", [{"retries": 99}, {"target": "trian"}, {"overrides": [1]}])
def test_impossible_parameters_are_refused_when_a_run_is_submitted(parameters: dict[str, Any]) -> None:
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(NAME)
        with pytest.raises(PrefectHTTPStatusError, match=next(iter(parameters))):
            client.create_flow_run_from_deployment(deployment.id, parameters=parameters)


def test_a_worker_runs_the_deployment_in_the_checkout(prefect: Prefect, checkout: Project) -> None:
    checkout.write()
    run = prefect.submit("target=train", f"overrides={json.dumps({'unlearn.method': 'ssd'})}")
    done = prefect("worker", "start", "--pool", "expunge", "--run-once")
    assert done.returncode == 0, done.stderr
    assert state_of(run) == "Completed"
    assert checkout.has("train")
    assert "method: ssd" in (checkout.root / "params.yaml").read_text()


def test_cancelling_a_run_ends_the_stage_with_its_whole_process_group(
    prefect: Prefect, checkout: Project
) -> None:
    checkout.write(split=MARKED_SLEEP)
    run = prefect.submit("target=split")
    with prefect.worker():
        until(lambda: len(checkout.pids()) == 2, seconds=90, what="the stage")
        assert prefect("flow-run", "cancel", str(run)).returncode == 0
        until(lambda: not any(map(alive, checkout.pids())), seconds=90, what="the end of the stage")
        until(lambda: state_of(run) == "Cancelled", seconds=90, what="the run to be cancelled")


def test_a_failed_run_says_why_without_a_traceback(prefect: Prefect) -> None:
    run = prefect.submit('overrides={"unlearn.metod": "ssd"}')
    assert prefect("worker", "start", "--pool", "expunge", "--run-once").returncode == 0
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
    assert state is not None
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith("'unlearn.metod' is not in params.yaml; keys of unlearn: ")
    log = prefect("flow-run", "logs", str(run)).stdout
    assert "Finished in state Failed" in log
    assert "Traceback" not in log


def test_a_request_is_handed_in_as_parameters_of_a_deployment(
    prefect: Prefect, checkout: Project, tmp_path: Path
) -> None:
    split = checkout.root / "data/split"
    split.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"train/{row}.png,train.parquet#{row},0,train\n" for row in range(3))
    (split / "samples.csv").write_text(f"sample_id,source,label,part\n{rows}", encoding="utf-8")
    (split / "classes.json").write_text('["cat"]', encoding="utf-8")
    (split / "rows.json").write_text('[{"file": "train.parquet", "rows": 3}]', encoding="utf-8")
    request = {
        "requester": "crm:4711",
        "received_at": "2026-05-01T09:30:00Z",
        "ground": "objection",
        "samples": {"index": [0]},
    }
    done = prefect(
        "deployment", "run", "submit-request/submit-request", "--param", f"submission={json.dumps(request)}"
    )
    assert done.returncode == 0, done.stderr
    ended = prefect("worker", "start", "--pool", "expunge", "--run-once", EXPUNGE_KEYS=str(tmp_path / "keys"))
    assert ended.returncode == 0, ended.stderr
    (found,) = Ledger(f"sqlite:///{checkout.root}/data/requests/ledger.db").events()[1:]
    assert found.kind == "validated"
    assert len(list((tmp_path / "keys").glob("*.key"))) == 1
