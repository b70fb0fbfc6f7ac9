import json
import math
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tasks import journal
from tasks.core.errors import ExpungeError
from tasks.core.params import Tracking
from tasks.journal import origin, spool

TRACKING = Tracking()
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    for name in ("EXPUNGE_PIPELINE", "EXPUNGE_TAGS", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / spool.LINES).read_text().split("\n") if line]


def last(folder: Path, kind: str) -> dict[str, Any]:
    return [line for line in lines(folder) if line["kind"] == kind][-1]


def test_importing_the_journal_imports_neither_mlflow_nor_torch_nor_pydantic() -> None:
    code = (
        "import sys, tasks.journal; print([m for m in ('mlflow', 'torch', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_first_line_says_who_writes_it_and_where_it_goes(tmp_path: Path) -> None:
    with journal.record("train", Tracking(uri="sqlite:///mlflow.db", experiment="x"), tmp_path) as run:
        first = lines(run.folder)[0]
    assert run.folder == tmp_path / ".expunge" / "spool" / run.key
    assert uuid.UUID(run.key).version == 4
    assert first["stage"] == "train"
    assert first["pipeline"] is None
    assert first["uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert first["experiment"] == "x"
    assert first["process"] == origin.process_of(os.getpid())


def test_every_kind_of_entry_is_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    (tmp_path / "loss.png").write_bytes(b"png")
    (tmp_path / "weights.safetensors").write_bytes(b"tensors")
    (tmp_path / "weights.json").write_text("{}")
    with journal.record("train", TRACKING, tmp_path) as run:
        run.params({"train.recipe.lr": 0.1, "train.model": "grey_cnn", "train.recipe.compile": False})
        run.tags({"git.commit": "abc"})
        run.metrics({"train/loss": 0.5}, step=3)
        run.dataset("data/split/images", "data/split/images", "d41d8", "input")
        run.artifact(tmp_path / "loss.png", "figures")
        run.model(tmp_path)
        for name in ("loss.png", "weights.safetensors", "weights.json"):
            (tmp_path / name).unlink()  # as when a temporary workspace is removed
        found = lines(run.folder)
        artifact, model = found[-2:]
        assert (run.folder / artifact["file"]).read_bytes() == b"png"
        assert (run.folder / model["weights"]).read_bytes() == b"tensors"
        assert (run.folder / model["info"]).read_text() == "{}"
    assert [line["kind"] for line in found] == [
        *("start", "params", "tags", "metrics", "dataset", "artifact", "model")
    ]
    assert found[1]["values"] == {
        "train.recipe.lr": "0.1",
        "train.model": "grey_cnn",
        "train.recipe.compile": "False",
    }
    assert last(run.folder, "end")["status"] == "FINISHED"


def test_two_files_of_one_name_do_not_replace_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for folder, text in ((tmp_path, "outer"), (tmp_path / "a", "inner")):
        (folder / "roc.csv").write_text(text)
    with journal.record("mia", TRACKING, tmp_path) as run:
        run.artifact(tmp_path / "roc.csv", "tables")
        run.artifact(tmp_path / "a" / "roc.csv", "more")
    files = [run.folder / line["file"] for line in lines(run.folder) if line["kind"] == "artifact"]
    assert [file.read_text() for file in files] == ["outer", "inner"]


def test_a_metric_without_a_step_stands_at_the_last_step_of_the_curves(tmp_path: Path) -> None:
    with journal.record("train", TRACKING, tmp_path) as run:
        run.metrics({"time/seconds": 1.0})
        assert last(run.folder, "metrics")["step"] == 0
        run.metrics({"val/acc": 0.5}, step=7)
        run.metrics({"val/acc": 0.4}, step=2)
        run.metrics({"val/acc": 0.6})
        assert last(run.folder, "metrics")["step"] == 7


def test_non_finite_metrics_survive_the_journal(tmp_path: Path) -> None:
    with journal.record("train", TRACKING, tmp_path) as run:
        run.metrics({"nan": float("nan"), "up": float("inf"), "down": -float("inf")})
        values = last(run.folder, "metrics")["values"]
    assert math.isnan(values["nan"])
    assert (values["up"], values["down"]) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ExpungeError("data/split is empty"), "FAILED", "data/split is empty"),
        (ValueError("two\nlines"), "FAILED", "ValueError: two lines"),
        (RuntimeError(), "FAILED", "RuntimeError"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt"),
        (SystemExit(143), "KILLED", None),
        (SystemExit(2), "FAILED", None),
        (SystemExit("no"), "FAILED", None),
        (SystemExit(0), "FINISHED", None),
    ],
)
def test_how_a_run_ended_is_recorded(
    tmp_path: Path, error: BaseException, status: str, text: str | None
) -> None:
    def run_and_fail() -> None:
        with journal.record("train", TRACKING, tmp_path):
            raise error

    with pytest.raises(type(error)):
        run_and_fail()
    (folder,) = (tmp_path / ".expunge" / "spool").iterdir()
    assert last(folder, "end")["status"] == status
    tags = [line["values"] for line in lines(folder) if line["kind"] == "tags"]
    assert tags == ([{"error": text}] if text else [])


def test_in_a_batch_of_requests_the_error_is_told_by_its_kind_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_TAGS", '{"expunge.batch": "batch-1"}')

    def run_and_fail() -> None:
        with journal.record("split", TRACKING, tmp_path):
            raise ExpungeError("line 1 'train/cat/1.png' is no sample id")

    with pytest.raises(ExpungeError):
        run_and_fail()
    (folder,) = (tmp_path / ".expunge" / "spool").iterdir()
    assert "cat" not in (folder / "journal.jsonl").read_text()
    tags = [line["values"] for line in lines(folder) if line["kind"] == "tags"]
    assert tags[-1] == {"error": "ExpungeError"}


def test_a_relative_sqlite_file_lies_in_the_root_and_other_stores_stay_as_they_are() -> None:
    root = Path("/srv/my repository")
    assert origin.store_uri("sqlite:///mlflow.db", root) == "sqlite:////srv/my repository/mlflow.db"
    assert origin.store_uri("sqlite:///a/b.db", root) == "sqlite:////srv/my repository/a/b.db"
    assert origin.store_uri("sqlite:////tmp/mlflow.db", root) == "sqlite:////tmp/mlflow.db"
    assert origin.store_uri("sqlite:///m.db", Path("/a%20?b")) == "sqlite:////a%2520%3Fb/m.db"
    assert origin.store_uri("http://127.0.0.1:5000", root) == "http://127.0.0.1:5000"


@pytest.mark.parametrize("uri", ["./mlruns", "mlflow.db", "sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_store_that_no_other_process_can_write_is_refused_at_the_start(tmp_path: Path, uri: str) -> None:
    with (
        pytest.raises(ExpungeError, match=r"tracking\.uri is .*sqlite:///mlflow\.db"),
        journal.record("train", Tracking(uri=uri), tmp_path),
    ):
        pytest.fail("the stage must not start")
    assert not (tmp_path / ".expunge").exists()


def test_the_pipeline_of_the_environment_is_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = uuid.uuid4().hex
    monkeypatch.setenv("EXPUNGE_PIPELINE", f"{key}:{os.getppid()}")
    with journal.record("split", TRACKING, tmp_path) as first, journal.record("train", TRACKING, tmp_path):
        assert first.pipeline == key
    owner = lines(tmp_path / ".expunge" / "spool" / key)
    assert len(owner) == 1
    assert owner[0]["stage"] is None
    assert owner[0]["process"] == origin.process_of(os.getppid())


@pytest.mark.parametrize(
    "given", ["", "abc:1", "A" * 32 + ":1", "0" * 32, "0" * 32 + ":-1", "../" * 11 + ":1"]
)
def test_a_malformed_pipeline_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("EXPUNGE_PIPELINE", given)
    with journal.record("split", TRACKING, tmp_path) as run:
        assert run.pipeline is None


def test_a_pipeline_names_itself_to_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with journal.pipeline(TRACKING, tmp_path) as parent:
        monkeypatch.setenv("EXPUNGE_PIPELINE", parent.handle)
        with journal.record("split", TRACKING, tmp_path) as run:
            assert run.pipeline == parent.key
    assert last(parent.folder, "end")["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"prefect.flow_run_id": "17"}', {"prefect.flow_run_id": "17"}),
        ('{"a": 1}', {}),
        ('["a"]', {}),
        ("{", {}),
        ("", {}),
    ],
)
def test_tags_of_the_environment_are_taken_if_they_are_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: dict[str, str]
) -> None:
    monkeypatch.setenv("EXPUNGE_TAGS", given)
    with journal.record("split", TRACKING, tmp_path) as run:
        assert lines(run.folder)[0]["tags"] == expected


def test_runs_whose_outputs_lie_in_the_workspace_are_noted_and_damaged_files_passed_over(
    tmp_path: Path,
) -> None:
    content = {
        "split": '{"run": "s", "inputs": {"data/raw": "1"}, "outputs": {"data/split/images": "2"}}',
        "train": '{"run": "t"}',
        "mia": '{"run": ',
        "report": '["run"]',
        "unlearn": '{"stage": "unlearn"}',
    }
    for stage, text in content.items():
        (tmp_path / "data" / stage).mkdir(parents=True)
        (tmp_path / "data" / stage / "run.json").write_text(text)
    with journal.record("finetune", TRACKING, tmp_path) as run:
        assert lines(run.folder)[0]["restored"] == {
            "split": {
                "run": "s",
                "inputs": {"data/raw": "1"},
                "outputs": {"data/split/images": "2"},
            },
            "train": {"run": "t", "inputs": {}, "outputs": {}},
        }


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/venv/bin/python", "/venv/bin/dvc", "repro"], True),
        (["python3", "-u", "-m", "dvc", "exp", "run"], True),
        (["dvc", "repro"], True),
        (["/bin/sh", "-c", "python -m tasks.train"], False),
        (["python", "-m", "tasks.train"], False),
        (["vim", "dvc"], False),
        (["python", "-m"], False),
        ([], False),
    ],
)
def test_a_dvc_command_is_recognised(command: list[str], expected: bool) -> None:
    assert origin.is_dvc(command) is expected


STAGE = """
import sys
from pathlib import Path
from tasks import journal
from tasks.core.params import Tracking

with journal.record(sys.argv[1], Tracking(), Path.cwd()) as run:
    Path("data/" + sys.argv[1]).mkdir(parents=True, exist_ok=True)
    Path(f"data/{sys.argv[1]}/out").write_text(Path("params.yaml").read_text())
"""

DVC_YAML = """
stages:
  split: {cmd: python stage.py split, deps: [stage.py, params.yaml], outs: [data/split/out]}
  train: {cmd: python stage.py train, deps: [stage.py, data/split/out], outs: [data/train/out]}
"""


def test_under_dvc_the_stages_share_a_pipeline_and_experiments_spool_in_the_main_root(tmp_path: Path) -> None:
    repository = tmp_path / "main"
    repository.mkdir()
    (repository / "stage.py").write_text(STAGE)
    (repository / "dvc.yaml").write_text(DVC_YAML)
    (repository / "params.yaml").write_text("a: 1\n")
    (repository / ".gitignore").write_text("/.expunge\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def run(*command: str) -> None:
        subprocess.run(command, cwd=repository, env=environment, check=True, capture_output=True, timeout=120)

    run("git", "init", "--quiet")
    run("dvc", "init", "--quiet")
    run("dvc", "repro", "--quiet")
    first = _stages_by_pipeline(repository)
    run("git", "add", ".")
    run("git", "commit", "--quiet", "-m", "first")
    run(sys.executable, "-m", "dvc", "exp", "run", "--quiet", "--temp", "-S", "a=2")
    both = _stages_by_pipeline(repository)
    assert sorted(first.values()) == [["split", "train"]]
    assert sorted(both.values()) == [["split", "train"], ["split", "train"]]
    assert first.items() <= both.items()


def _stages_by_pipeline(repository: Path) -> dict[str, list[str]]:
    headers = [lines(folder)[0] for folder in (repository / ".expunge" / "spool").iterdir()]
    assert {header["uri"] for header in headers} == {f"sqlite:///{repository}/mlflow.db"}
    found: dict[str, list[str]] = {}
    for header in headers:
        if header["stage"]:
            found.setdefault(header["pipeline"], []).append(header["stage"])
    return {key: sorted(stages) for key, stages in found.items()}
