from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flows._report import Outcome, markdown
from tasks.core.files import digest
from tasks.tracking import RUNS
from tests import fabricated

KEY = "0123456789abcdef0123456789abcdef"


def page(outcomes: dict[str, Outcome]) -> str:
    return markdown(outcomes, flow_run="happy-owl (`1234`)", key=KEY)


def row(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_stage_has_a_row_with_status_seconds_and_run() -> None:
    Path("data/train").mkdir(parents=True)
    Path("data/train/run.json").write_text(json.dumps({"run": "f" * 32}))
    RUNS.mkdir(parents=True)
    (RUNS / f"{'f' * 32}.json").write_text(json.dumps({"run_id": "abc123", "experiment_id": "1", "uri": "u"}))
    text = page({"train": Outcome("success", 12.34), "mia": Outcome("skipped", note="a | b")})
    assert row(text, "train") == ["train", "success", "12.3", "`abc123`", ""]
    assert row(text, "mia") == ["mia", "skipped", "", "", "a \\| b"]


def test_a_run_that_mlflow_has_not_got_yet_can_be_found_later() -> None:
    Path("data/train").mkdir(parents=True)
    Path("data/train/run.json").write_text(json.dumps({"run": KEY}))
    text = page({"train": Outcome("cached", 0.1)})
    assert f"`python -m tasks.tracking find {KEY}`" in row(text, "train")


def test_runs_of_a_stage_that_failed_are_not_shown() -> None:
    Path("data/train").mkdir(parents=True)
    Path("data/train/run.json").write_text(json.dumps({"run": "f" * 32}))
    assert "f" * 32 not in page({"train": Outcome("error", 1.0, "no")})


def test_figures_and_verdict_come_from_the_attack(tmp_path: Path) -> None:
    from tasks.mia import mia

    fabricated.write(tmp_path)
    mia(fabricated.parameters())
    metrics = json.loads(Path("data/mia/models.json").read_text())
    text = page({"mia": Outcome("cached", 0.1)})
    for model in ("original", "unlearned", "finetuned", "retrained"):
        assert row(text, model)[1:] == [
            f"{metrics[f'{model}/{name}']:.3f}"
            for name in ("retain/acc", "forget/acc", "test/acc", "mia/acc", "mia/auc")
        ]
    verdict = json.loads(Path("data/mia/verdict.json").read_text())
    assert f"**{verdict['verdict']}**. {verdict['text']}" in text


def test_figures_of_an_older_run_are_left_out() -> None:
    Path("data/mia").mkdir(parents=True)
    Path("data/mia/models.json").write_text(json.dumps({"original/mia/auc": 0.5}))
    assert "0.500" not in page({"mia": Outcome("error", 1.0, "no")})
    assert "0.500" in page({"mia": Outcome("success", 1.0)})


@pytest.mark.parametrize("damaged", ["", "[]", "{", "null"])
def test_a_damaged_file_leaves_a_gap_not_a_run_without_a_page(damaged: str) -> None:
    Path("data/mia").mkdir(parents=True)
    for name in ("models.json", "verdict.json", "run.json"):
        Path("data/mia", name).write_text(damaged)
    assert row(page({"mia": Outcome("success", 1.0)}), "mia") == ["mia", "success", "1.0", "", ""]


def test_commit_lock_report_and_flow_run_are_linked(tmp_path: Path) -> None:
    Path("dvc.lock").write_text("stages: {}\n")
    Path("params.yaml").write_text("split: {}\n")
    Path("data/report").mkdir(parents=True)
    Path("data/report/report.html").write_text("<html>")
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "dvc.lock", "params.yaml"],
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(command, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    text = page({"report": Outcome("success", 1.0)})
    assert row(text, "Git commit")[1] == f"`{head.strip()}`"
    assert row(text, "dvc.lock (MD5)")[1] == f"`{digest(Path('dvc.lock'))}`"
    assert row(text, "flow run")[1] == "happy-owl (`1234`)"
    assert [line for line in text.splitlines() if str(tmp_path / "data/report/report.html") in line]
    Path("params.yaml").write_text("changed\n")
    assert "not committed" in page({"report": Outcome("success", 1.0)})
