"""What a stage says about itself: ``run.json``, and the journal that goes to MLflow."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from tests.functional.conftest import FirstRun
from tests.functional.repository import EPOCHS, STAGES, Repository


def digests(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in entries}


def journal(repository: Repository, run: dict[str, Any]) -> list[dict[str, Any]]:
    path = repository.root / f".expunge/spool/{run['run']}/journal.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


@pytest.mark.parametrize("stage", STAGES)
def test_the_digests_of_a_run_are_those_that_dvc_recorded(first_run: FirstRun, stage: str) -> None:
    repository = first_run.repository
    run, lock = repository.json(f"data/{stage}/run.json"), repository.lock(stage)
    data = {path: md5 for path, md5 in digests(lock["deps"]).items() if path.startswith("data/")}
    if stage == "split":
        del data["data/forget.txt"]  # forget.kind is random: the list decides nothing
        assert run["inputs"]["data/source"].endswith(".dir")
    assert run["inputs"] == data
    outputs = digests(lock["outs"])
    assert outputs.pop(f"data/{stage}/run.json")
    assert run["outputs"] == outputs


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_names_its_stage_time_commit_and_environment(first_run: FirstRun, stage: str) -> None:
    repository = first_run.repository
    run = repository.json(f"data/{stage}/run.json")
    assert run["stage"] == stage
    assert run["git.commit"] == repository.git("rev-parse", "HEAD~1").strip()
    assert run["git.dirty"] == "false"
    assert datetime.fromisoformat(run["started"]).utcoffset() is not None
    assert 0 < run["seconds"] < 240
    assert 30 < run["peak_memory_mib"] < 1500
    computes = stage in {"train", "retrain", "unlearn", "finetune"}
    assert {"python", "platform", "torch", "numpy", "dvc"} <= run["environment"].keys()
    assert ({"device", "cpu_capability", "threads"} <= run["environment"].keys()) == computes
    if computes:
        assert run["environment"]["threads"] == 1


def test_all_stages_of_a_repro_belong_to_one_pipeline_run(first_run: FirstRun) -> None:
    runs = [first_run.repository.json(f"data/{stage}/run.json") for stage in STAGES]
    assert len({run["pipeline"] for run in runs}) == 1
    assert len({run["run"] for run in runs}) == len(STAGES)


def test_the_record_shows_the_parameters_that_apply_and_no_others(first_run: FirstRun) -> None:
    repository = first_run.repository
    names = {}
    for stage in STAGES:
        entries = journal(repository, repository.json(f"data/{stage}/run.json"))
        names[stage] = {name for entry in entries if entry["kind"] == "params" for name in entry["values"]}
    runtime = {"runtime.device", "runtime.threads", "runtime.processes"}
    assert names["unlearn"] == {"unlearn.method", "unlearn.seed", *runtime}
    assert {"train.model", "train.recipe.lr", "train.recipe.augment.flip"} <= names["train"]
    assert not any(name.startswith("train.small_cnn") for name in names["train"])
    assert not {"train.recipe.betas", "train.recipe.restart_epochs"} & names["train"]  # of adamw, of restarts
    assert names["report"] == {"report.title"}


def test_the_record_of_a_training_has_its_curves_its_model_and_its_end(first_run: FirstRun) -> None:
    repository = first_run.repository
    entries = journal(repository, repository.json("data/train/run.json"))
    steps = [entry["step"] for entry in entries if entry["kind"] == "metrics"]
    assert steps == [*range(1, EPOCHS["train"] + 1), EPOCHS["train"]]
    tags = {
        name: value for entry in entries if entry["kind"] == "tags" for name, value in entry["values"].items()
    }
    assert tags["weights.sha256"] == repository.json("data/train/weights.json")["sha256"]
    assert (
        tags["dvc.out.data/train/logits.npy"]
        == digests(repository.lock("train")["outs"])["data/train/logits.npy"]
    )
    assert entries[-1]["status"] == "FINISHED"


def test_a_stage_started_by_hand_records_the_same_inputs_and_outputs(repository: Repository) -> None:
    run = repository.json("data/split/run.json")
    repository.write("data/forget.txt", "digits/0001\n")
    repository.change({"split.forget": {"kind": "ids"}})
    repository.stage("split")
    again = repository.json("data/split/run.json")
    assert again["pipeline"] is None
    assert again["outputs"].keys() == run["outputs"].keys()
    assert again["inputs"].keys() == {"data/source", "data/requests/erased.txt", "data/forget.txt"}
    assert again["git.dirty"] == "true"
