"""DVC's own commands to try, compare and draw, on an experiment with another method."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from typing import Any

import pytest

from tests.functional.conftest import FirstRun
from tests.functional.repository import EPOCHS, STAGES, Repository
from tests.functional.test_repro import assert_loaded_code_is_in_deps


@pytest.fixture(scope="module")
def tried(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """A workspace in which ``dvc exp run -S unlearn.method=ssd`` has run, and what that printed."""
    repository = first_run.repository.copy(tmp_path_factory.mktemp("tried") / "project")
    command = ("dvc", "exp", "run", "--name", "dampened", "-S", "unlearn.method=ssd")
    done = repository.run("sh", "-c", '"$@" 2>&1', "sh", *command, PYTHONPROFILEIMPORTTIME="1")
    return FirstRun(repository, done.stdout)


def test_an_experiment_runs_what_its_parameter_changes(tried: FirstRun) -> None:
    ran = re.findall(r"^Running stage '(\w+)'", tried.printed, re.MULTILINE)
    assert ran == ["unlearn", "finetune", "audit", "mia", "report"]
    assert "Ran experiment(s): dampened" in tried.printed
    assert tried.repository.git("status", "--porcelain", "-uno").split() == [
        *("M", "dvc.lock"),
        *("M", "params.yaml"),
    ]


def test_all_code_that_another_method_loads_is_in_the_deps_of_unlearn(tried: FirstRun) -> None:
    assert_loaded_code_is_in_deps(tried.repository, tried.printed, "unlearn")
    assert "tasks/methods/ssd.py" in [dep["path"] for dep in tried.repository.lock("unlearn")["deps"]]


def test_exp_show_lists_the_experiment_beside_its_baseline(tried: FirstRun) -> None:
    rows = list(csv.DictReader(io.StringIO(tried.repository.dvc("exp", "show", "--csv"))))
    method = {row["Experiment"] or row["rev"]: row["unlearn.method"] for row in rows}
    assert method == {"workspace": "ssd", "main": "none", "dampened": "ssd"}
    assert all(0 <= float(row["mia/auc"]) <= 1 for row in rows)


def test_metrics_show_and_diff_have_the_figures_of_the_stages(tried: FirstRun) -> None:
    shown = json.loads(tried.repository.dvc("metrics", "show", "--json"))[""]["data"]
    assert sorted(shown) == sorted(f"data/{stage}/metrics.json" for stage in STAGES if stage != "report")
    for path, metrics in shown.items():
        assert metrics["data"] == tried.repository.json(path)
    changes = json.loads(tried.repository.dvc("metrics", "diff", "--json"))
    assert set(changes) == {f"data/{stage}/metrics.json" for stage in ("unlearn", "finetune", "audit", "mia")}
    loss = changes["data/unlearn/metrics.json"]["forget/loss"]
    assert loss["new"] == shown["data/unlearn/metrics.json"]["data"]["forget/loss"]
    assert loss["diff"] == pytest.approx(loss["new"] - loss["old"])


def test_params_diff_names_the_one_parameter(tried: FirstRun) -> None:
    assert json.loads(tried.repository.dvc("params", "diff", "--json")) == {
        "params.yaml": {"unlearn.method": {"old": "none", "new": "ssd"}}
    }


def test_plots_show_draws_every_model_in_the_roc_and_every_training_in_the_curves(tried: FirstRun) -> None:
    page = tried.repository.dvc("plots", "show").strip().removeprefix("file://")
    assert page == str(tried.repository.root / "dvc_plots/index.html")
    series = drawn(tried.repository, "show")
    roc = series["data/mia/roc.csv"]
    assert roc["encoding"]["x"]["field"] == "fpr"
    assert roc["encoding"]["y"]["field"] == "tpr"
    assert roc["encoding"]["color"]["field"] == "model"
    assert {row["model"] for row in roc["data"]["values"]} == {
        "original", "unlearned", "finetuned", "retrained",
    }  # fmt: skip
    curves = ("train/loss", "train/acc", "val/loss", "val/acc")
    assert set(series) == {*curves, "data/mia/roc.csv"}
    for name in curves:
        files = Counter(row["filename"] for row in series[name]["data"]["values"])
        assert files == {f"{stage}/history.csv": epochs for stage, epochs in EPOCHS.items()}
        assert f'"field": "{name}"' in json.dumps(series[name]["layer"])


def test_plots_diff_overlays_two_versions_and_shows_both_pictures(tried: FirstRun) -> None:
    tried.repository.dvc("plots", "diff", "HEAD", "workspace")
    root = tried.repository.root
    page = (root / "dvc_plots/index.html").read_text(encoding="utf-8")
    for picture in ("losses", "roc"):
        for revision in ("HEAD", "workspace"):
            file = f"static/{revision}_data_mia_{picture}.png"
            assert file in page
            assert (root / "dvc_plots" / file).read_bytes().startswith(b"\x89PNG")
    versions = {row["rev"] for row in drawn(tried.repository, "diff")["data/mia/roc.csv"]["data"]["values"]}
    assert versions == {"HEAD", "workspace"}


def test_dag_shows_the_stages_in_their_order(tried: FirstRun) -> None:
    arrows = re.findall(r'"(\w+)" -> "(\w+)"', tried.repository.dvc("dag", "--dot"))
    assert {start for start, _ in arrows} | {end for _, end in arrows} == set(STAGES)
    assert all(STAGES.index(start) < STAGES.index(end) for start, end in arrows)
    assert ("train", "retrain") not in arrows
    picture = tried.repository.dvc("dag")
    assert all(f"| {stage} |" in picture for stage in STAGES)


def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(repository: Repository) -> None:
    before = repository.contents()
    repository.dvc("exp", "run", "--temp", "--name", "aside", "-S", "report.title=Aside")
    assert repository.contents() == before
    assert repository.git("status", "--porcelain") == ""
    repository.dvc("exp", "apply", "aside")
    assert "Aside" in (repository.root / "data/report/report.html").read_text(encoding="utf-8")
    assert "Running stage" not in repository.dvc("repro")


def drawn(repository: Repository, command: str) -> dict[str, dict[str, Any]]:
    """Vega-Lite descriptions of all drawn series, by name; of ``diff`` between HEAD and the workspace."""
    versions = ("HEAD", "workspace") if command == "diff" else ()
    plots: dict[str, Any] = json.loads(repository.dvc("plots", command, "--json", *versions))
    assert "errors" not in plots
    found = {}
    for name, (plot, *_) in plots["data"].items():
        if plot["type"] == "vega":
            found[name] = (
                plot["content"] if isinstance(plot["content"], dict) else json.loads(plot["content"])
            )
    return found
