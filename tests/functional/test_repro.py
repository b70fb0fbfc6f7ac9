"""What ``dvc repro`` runs, and what it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import FirstRun
from tests.functional.repository import STAGES, Repository

ALL = set(STAGES)
COPIES = {"sample"}
AFTER_TRAIN = {"unlearn", "finetune", "audit", "mia", "report"}
MODELS = {"train", "retrain", "unlearn", "finetune"}


@pytest.fixture(scope="module")
def kept(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy that tests change for a moment and put back."""
    return first_run.repository.copy(tmp_path_factory.mktemp("kept") / "project")


@pytest.fixture(scope="module")
def downstream(kept: Repository) -> dict[str, set[str]]:
    return kept.downstream()


@contextmanager
def put_back(repository: Repository, *files: str) -> Iterator[None]:
    """Restore files at the end."""
    before = {file: (repository.root / file).read_bytes() for file in files}
    try:
        yield
    finally:
        for file, content in before.items():
            (repository.root / file).write_bytes(content)


def test_a_second_repro_runs_nothing_and_changes_nothing(kept: Repository) -> None:
    before = kept.contents()
    printed = kept.dvc("repro")
    unchanged = re.findall(r"Stage '(\w+)' didn't change, skipping", printed)
    assert [stage for stage in unchanged if stage not in COPIES] == list(STAGES)
    assert set(unchanged) == ALL | COPIES
    assert "Running stage" not in printed
    assert kept.contents() == before
    assert kept.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("split.seed", 7, ALL),
        ("split.forget.fraction", 0.2, ALL),
        ("train.recipe.epochs", 13, ALL - {"split"}),
        ("train.seed", 7, ALL - {"split", "retrain"}),
        ("train.start", "base", ALL - {"split", "retrain"}),
        ("retrain.seed", 7, {"retrain", "mia", "report"}),
        ("unlearn.method", "ssd", AFTER_TRAIN),
        ("unlearn.seed", 7, AFTER_TRAIN),
        ("finetune.recipe.lr", 0.05, {"finetune", "audit", "mia", "report"}),
        ("finetune.recipe", None, {"finetune", "audit", "mia", "report"}),
        ("mia.confidence", 0.9, {"audit", "mia", "report"}),
        ("report.title", "Another title", {"report"}),
        ("runtime.threads", 2, ALL - {"split"}),
    ],
)
def test_a_parameter_reruns_only_what_depends_on_it(
    kept: Repository, downstream: dict[str, set[str]], name: str, value: Any, expected: set[str]
) -> None:
    with put_back(kept, "params.yaml"):
        kept.change({name: value})
        changed = kept.changed()
    assert set().union(*(downstream[stage] for stage in changed)) == expected


def test_parameters_that_do_not_apply_rerun_nothing(kept: Repository) -> None:
    with put_back(kept, "params.yaml"):
        kept.change({"unlearn.ssd.alpha": 3.0, "train.small_cnn.widths": [8, 8, 8]})
        kept.change({"tracking.uri": "http://127.0.0.1:1", "tracking.experiment": "another"})
        kept.change({"requests.approval": True, "requests.keys": "/elsewhere"})
        assert kept.changed() == set()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tasks/stage.py", ALL | COPIES),
        ("tasks/journal/spool.py", ALL | COPIES),
        ("tasks/sample.py", COPIES),
        ("tasks/datasets/parquet.py", COPIES),
        ("tasks/split.py", {"split"}),
        ("tasks/datasets/digits.py", {"split"}),
        ("tasks/train.py", {"train", "retrain"}),
        ("tasks/engine/training.py", MODELS),
        ("tasks/models/grey_cnn.py", MODELS),
        ("tasks/methods/__init__.py", {"unlearn"}),
        ("tasks/methods/none.py", {"unlearn"}),
        ("tasks/metrics/roc.py", {"audit", "mia"}),
        ("tasks/metrics/histogram.py", {"audit", "mia", "report"}),
        ("tasks/reporting/templates/report.html", {"report"}),
    ],
)
def test_code_reruns_the_stages_that_import_it(kept: Repository, file: str, expected: set[str]) -> None:
    with put_back(kept, file):
        kept.append(file, "\n# a remark\n")
        assert kept.changed() == expected


def test_code_that_is_not_in_use_reruns_nothing(kept: Repository) -> None:
    unused = (
        "datasets/image_folder",
        "models/resnet18",
        "methods/ssd",
        "check",
        "serving",
        "tracking/sender",
    )
    files = [f"tasks/{name}.py" for name in unused]
    with put_back(kept, *files):
        for file in files:
            kept.append(file, "\n# a remark\n")
        assert kept.changed() == set()


def test_a_new_list_of_ids_or_image_reruns_split(kept: Repository) -> None:
    for file in ("data/forget.txt", "data/source/b/c/3.txt"):
        with put_back(kept, file):
            kept.append(file, "digits/0001\n")
            assert kept.changed() == {"split"}


def test_a_new_forget_set_leaves_the_original_model_alone(repository: Repository) -> None:
    repository.change({"split.forget.fraction": 0.2})
    repository.dvc("repro", "split")
    assert repository.changed() == {"retrain", "unlearn", "finetune", "audit", "mia", "report"}


def test_a_list_of_ids_that_is_not_in_use_reruns_split_alone(repository: Repository) -> None:
    repository.append("data/forget.txt", "digits/0001\n")
    repository.dvc("repro", "split")
    assert repository.changed() == set()


def test_earlier_parameters_are_restored_and_not_computed_again(repository: Repository) -> None:
    page = repository.root / "data/report/report.html"
    first = page.read_bytes()
    repository.change({"report.title": "Another title"})
    repository.dvc("repro")
    repository.commit("another title")
    assert b"Another title" in page.read_bytes()
    repository.git("checkout", "--quiet", "HEAD~1", "--", "params.yaml")
    printed = repository.dvc("repro")
    assert "Stage 'report' is cached - skipping run, checking out outputs" in printed
    assert "Running stage" not in printed
    assert page.read_bytes() == first


@pytest.mark.parametrize("stage", STAGES)
def test_all_code_that_a_stage_loads_is_in_its_deps(first_run: FirstRun, stage: str) -> None:
    assert_loaded_code_is_in_deps(first_run.repository, first_run.printed, stage)


def assert_loaded_code_is_in_deps(repository: Repository, printed: str, stage: str) -> None:
    """Compare the import times that a stage printed with its entry in ``dvc.lock``."""
    deps = [Path(dep["path"]) for dep in repository.lock(stage)["deps"]]
    part = re.search(
        rf"^Running stage '{stage}':$(.*?)(^Running stage|\Z)", printed, re.DOTALL | re.MULTILINE
    )
    assert part is not None
    loaded = set(re.findall(r"^import time:.*\| +(tasks[\w.]*)$", part[1], re.MULTILINE)) - {"tasks"}
    assert {"tasks.stage", "tasks.core.params", "tasks.journal"} <= loaded
    for module in loaded | {f"tasks.{stage}"}:
        path = Path(*module.split("."))
        file = path / "__init__.py" if (repository.root / path).is_dir() else path.with_suffix(".py")
        assert any(file == dep or dep in file.parents for dep in deps), f"{stage} loads {file}"


def test_dvc_starts_a_training_that_several_processes_share(repository: Repository) -> None:
    alone = repository.json("data/finetune/run.json")["environment"]
    repository.change({"runtime.processes": 2})
    printed = repository.dvc("repro", "--single-item", "unlearn", "finetune")
    assert printed.count("epoch 1/") == 1
    assert repository.json("data/unlearn/run.json")["environment"]["processes"] == 1
    assert repository.json("data/finetune/run.json")["environment"] == alone | {"processes": 2}
    run = repository.json("data/finetune/run.json")
    assert run["pipeline"] == repository.json("data/unlearn/run.json")["pipeline"]  # both of this repro
