"""The flow in this process, against a real server and a real DVC project."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ParameterTypeError
from ruamel.yaml import YAML

from flows.pipeline import StageName, pipeline
from tests.flows.conftest import REPOSITORY
from tests.flows.project import INPUTS, Project, until

pytestmark = [
    pytest.mark.usefixtures("server"),
    # Prefect's clients leave their sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def run(**parameters: Any) -> State[Any]:
    state: State[Any] = pipeline(**{"retry_delay": 0, **parameters}, return_state=True)
    return state


def run_id(state: State[Any]) -> Any:
    return state.state_details.flow_run_id


def task_states(state: State[Any], count: int) -> dict[str, str]:
    """State name of each task run; the server learns them by events, a little later."""
    found: dict[str, str] = {}

    def all_final() -> bool:
        selected = FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)]))
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=selected)
        found.update({run.name: str(run.state_name) for run in runs if run.state and run.state.is_final()})
        return len(found) == count

    until(all_final, what=f"{count} task runs")
    return found


def log_of(state: State[Any], last: str) -> str:
    """The flow's log as the server has it; it is sent in batches."""
    lines: list[str] = []

    def complete() -> bool:
        selected = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id(state)]))
        with get_client(sync_client=True) as client:
            lines[:] = [entry.message for entry in client.read_logs(selected, limit=200)]
        return any(last in line for line in lines)

    until(complete, what=f"{last!r} in the log")
    return "\n".join(lines)


def page() -> str:
    with get_client(sync_client=True) as client:
        newest, *_ = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["unlearning-pipeline"])),
            sort=ArtifactSort.CREATED_DESC,
            limit=1,
        )
    return str(newest.data)


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines}


def entries(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines() if line]


def test_the_known_targets_are_the_stages_of_dvc_yaml() -> None:
    stages = YAML(typ="safe").load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    assert get_args(StageName) == tuple(stages)


def test_stages_succeed_and_are_cached_the_second_time(project: Project) -> None:
    first = run()
    assert first.is_completed()
    assert first.message == "8 success"
    assert all(map(project.has, INPUTS))
    assert task_states(first, 8) == dict.fromkeys(INPUTS, "Completed")
    text = page()
    assert {stage: rows(text)[stage][0] for stage in INPUTS} == dict.fromkeys(INPUTS, "success")
    assert str(run_id(first)) in text

    second = run()
    assert second.message == "8 cached"
    assert task_states(second, 8) == dict.fromkeys(INPUTS, "Cached")
    assert "Stage 'train' didn't change, skipping" in log_of(second, "Report: report")


def test_bad_input_fails_the_flow_with_the_stages_line_and_is_not_tried_again(project: Project) -> None:
    project.write(train="echo try >> tries; echo 'expunge train: data/x is missing' >&2; exit 2")
    state = run(retries=3)
    assert state.is_failed()
    assert state.message == "train: data/x is missing (exit status 2)"
    assert (project.root / "tries").read_text().split() == ["try"]
    ended = {stage: cells[0] for stage, cells in rows(page()).items() if stage in INPUTS}
    assert ended["split"] == "success"
    assert ended["train"] == "error"
    assert {ended[stage] for stage in ("unlearn", "finetune", "audit", "mia", "report")} == {"skipped"}
    assert rows(page())["train"][3] == "data/x is missing (exit status 2)"
    states = task_states(state, 8)
    assert states["train"] == "Failed"
    assert states["report"] == "Skipped"
    log = log_of(state, "Report: report")
    assert "Traceback" not in log
    assert "NoneType" not in log


def test_a_stage_that_is_killed_once_is_tried_again(project: Project) -> None:
    project.write(
        split="echo split >> count", train="echo train >> count; test -e b || { touch b; kill -9 $$; }"
    )
    state = run(target="train", retries=1)
    assert state.message == "2 success, 6 skipped"
    assert (project.root / "count").read_text().split() == ["split", "train", "train"]


def test_retries_come_to_an_end(project: Project) -> None:
    project.write(train="echo try >> tries; echo 'OSError: disk'; exit 74")
    state = run(target="train", retries=1)
    assert state.message == "train: OSError: disk (exit status 74)"
    assert len((project.root / "tries").read_text().split()) == 2
    log = log_of(state, "Report: report")
    assert "Retries are exhausted" in log
    assert "NoneType" not in log


def test_a_target_leaves_the_other_stages_alone(project: Project) -> None:
    assert run(target="train").message == "2 success, 6 skipped"
    assert not project.has("unlearn")
    assert rows(page())["unlearn"][3] == "not selected"


def test_overrides_reach_params_yaml_and_rerun_what_depends_on_them(project: Project) -> None:
    assert run(target="unlearn", overrides={"unlearn.method": "none"}).message == "3 success, 5 skipped"
    state = run(target="unlearn", overrides={"unlearn.method": "ssd"})
    assert state.message == "2 cached, 1 success, 5 skipped"
    text = (project.root / "params.yaml").read_text()
    assert "method: ssd" in text
    assert text.count("#") == (REPOSITORY / "params.yaml").read_text().count("#")


def test_a_bad_override_fails_before_anything_is_written_or_run(project: Project) -> None:
    before = (project.root / "params.yaml").read_bytes()
    state = run(overrides={"unlearn.method": "magic"})
    assert state.is_failed()
    assert state.message is not None
    assert "method is 'magic'; known: " in state.message
    assert (project.root / "params.yaml").read_bytes() == before
    assert not project.has("split")


@pytest.mark.parametrize(
    "parameters",
    [
        {"target": "trian"},
        {"retries": 11},
        {"retries": -1},
        {"retry_delay": -1},
        {"force": "perhaps"},
        {"overrides": {"unlearn": {"method": "ssd"}}},
        {"overrides": ["unlearn.method=ssd"]},
    ],
)
def test_impossible_parameters_are_refused(project: Project, parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterTypeError):
        pipeline.validate_parameters(parameters)


def test_the_parameters_show_with_limits_and_descriptions() -> None:
    shown = pipeline.parameters.properties
    assert sorted(shown) == ["force", "overrides", "retries", "retry_delay", "target"]
    assert (shown["retries"]["minimum"], shown["retries"]["maximum"]) == (0, 10)
    assert all(entry["description"] for entry in shown.values())
    assert not pipeline.parameters.required


def test_a_second_run_in_the_same_folder_is_refused(project: Project) -> None:
    locks = project.root / ".expunge" / "locks"
    locks.mkdir(parents=True)
    (locks / "pipeline.pid").write_text("4242\n")
    with FileLock(locks / "pipeline.lock"):
        state = run()
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith("pipeline is being written by process 4242")
    assert not project.has("split")


def test_stages_get_the_key_of_the_pipelines_record_and_the_flow_run(project: Project) -> None:
    project.write(split='echo "$EXPUNGE_PIPELINE" > key; echo "$EXPUNGE_TAGS" > tags')
    state = run(target="split")
    key, _, pid = (project.root / "key").read_text().strip().partition(":")
    assert (project.root / ".expunge" / "spool" / key / "journal.jsonl").exists()
    assert key in page()
    assert int(pid) == os.getpid()
    tags = json.loads((project.root / "tags").read_text())
    assert tags["prefect.flow_run_id"] == str(run_id(state))
    journal = entries(project.root / ".expunge" / "spool" / key / "journal.jsonl")
    assert {"kind": "tags", "values": tags} in journal
    assert journal[-1]["status"] == "FINISHED"


def test_the_record_of_a_failed_pipeline_says_so(project: Project) -> None:
    project.write(split="echo 'expunge split: no'; exit 2")
    run(target="split")
    (path,) = (project.root / ".expunge" / "spool").glob("*/journal.jsonl")
    journal = entries(path)
    assert journal[-1]["status"] == "FAILED"
    assert {"kind": "tags", "values": {"error": "split: no (exit status 2)"}} in journal
