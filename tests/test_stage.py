"""What makes a function a stage: exit status, one line of complaint, the record of the run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import Runtime, read_yaml
from tasks.stage import environment, flatten, git_state
from tests.core.test_params_yaml import SHIPPED

ROOT = Path(__file__).resolve().parents[1]

STAGE = """
'''Say something.'''
import os, signal, sys, warnings
from pathlib import Path
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.files import write_json
from tasks.stage import Stage

def demo(params, on_epoch):
    {body}
    return {{"figure": 1.0}}

Stage("demo", demo, ("data/in.txt", "data/missing.txt"), ("unlearn",)).main()
"""


def run(folder: Path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a stage with that body in ``folder``."""
    values = read_yaml(SHIPPED)
    (folder / "params.yaml").write_text(json.dumps(values), encoding="utf-8")
    inherited = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"}
    return subprocess.run(
        (sys.executable, "-c", STAGE.format(body=body), *arguments),
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "EXPUNGE_TRACKING": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def journal(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / ".expunge/spool").glob("*/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line]


@pytest.mark.parametrize(
    ("body", "status", "complaint", "end"),
    [
        ("pass", 0, "", "FINISHED"),
        ("raise ExpungeError('a: wrong; use b')", 2, "a: wrong; use b", "FAILED"),
        ("raise ExpungeError('a\\n  b\\u2028c')", 2, "a b c", "FAILED"),
        ("raise BusyError('wait')", 75, "wait", "FAILED"),
        ("raise OSError(28, 'No space left on device', 'x')", 74, "No space left on device (x)", "FAILED"),
        ("raise OSError(28, 'No space left on device')", 74, "No space left on device", "FAILED"),
        ("raise OSError('5 requested')", 74, "reading or writing failed: 5 requested", "FAILED"),
        (
            "os.kill(os.getpid(), signal.SIGINT)", 130,
            "interrupted; run it again to resume after the last epoch", "KILLED",
        ),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, "", "KILLED"),
    ],
)  # fmt: skip
def test_the_way_a_stage_ends_is_its_status_its_one_line_and_its_record(
    tmp_path: Path, body: str, status: int, complaint: str, end: str
) -> None:
    (tmp_path / "data/demo").mkdir(parents=True)
    done = run(tmp_path, body)
    assert done.returncode == status
    assert done.stderr == (f"expunge demo: {complaint}\n" if complaint else "")
    assert journal(tmp_path)[-1]["status"] == end
    assert (tmp_path / "data/demo/run.json").exists() == (status == 0)


def test_a_defect_shows_its_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert journal(tmp_path)[-1]["status"] == "FAILED"


def test_a_wrong_argument_starts_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", "--fast")
    assert done.returncode == 2
    assert "unrecognized arguments: --fast" in done.stderr
    assert not (tmp_path / ".expunge").exists()


def test_help_comes_from_the_module(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", "--help")
    assert done.returncode == 0
    assert "Say something. Reads params.yaml and data/, writes data/demo/." in " ".join(done.stdout.split())


def test_the_record_holds_inputs_that_exist_and_outputs_that_the_stage_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "data/demo"
    folder.mkdir(parents=True)
    (tmp_path / "data/in.txt").write_bytes(b"in")
    (folder / ".gitignore").write_text("/out.json\n")
    (folder / "run.json").write_text("{}")
    run(tmp_path, "write_json(Path('data/demo/out.json'), [])")
    record = json.loads((folder / "run.json").read_text())
    assert record["inputs"] == {"data/in.txt": hashlib.md5(b"in").hexdigest()}
    assert record["outputs"] == {"data/demo/out.json": hashlib.md5(b"[]\n").hexdigest()}
    entries = journal(tmp_path)
    assert record["run"] == entries[0]["key"]
    assert [entry["values"] for entry in entries if entry["kind"] == "metrics"] == [{"figure": 1.0}]
    tables = [Path(entry["file"]).name for entry in entries if entry["kind"] == "artifact"]
    assert tables == ["out.json"]


def test_no_table_that_names_samples_is_recorded(tmp_path: Path) -> None:
    tables = {"a.csv": "sample_id,x", "b.csv": "x,sample_id,y", "c.csv": "x,y", "d.csv": ""}
    written = "; ".join(
        f"Path('data/demo/{name}').write_text('{head}\\n1,2\\n')" for name, head in tables.items()
    )
    (tmp_path / "data/demo").mkdir(parents=True)
    run(tmp_path, written)
    files = [entry["file"] for entry in journal(tmp_path) if entry["kind"] == "artifact"]
    assert sorted(Path(each).name for each in files) == ["c.csv", "d.csv"]


def test_epochs_are_recorded_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "data/demo").mkdir(parents=True)
    run(tmp_path, "on_epoch(1, {'loss': 2.0}); on_epoch(2, {'loss': 1.5})")
    metrics = [(entry["step"], entry["values"]) for entry in journal(tmp_path) if entry["kind"] == "metrics"]
    assert metrics == [(1, {"loss": 2.0}), (2, {"loss": 1.5}), (2, {"figure": 1.0})]


def test_a_warning_is_a_line_of_the_log_and_no_complaint(tmp_path: Path) -> None:
    (tmp_path / "data/demo").mkdir(parents=True)
    done = run(tmp_path, "warnings.warn('old option')")
    assert "UserWarning: old option" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


class TestGitState:
    @pytest.fixture(autouse=True)
    def _in_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def commit(self, tmp_path: Path) -> str:
        for name in ("code.py", "dvc.lock"):
            (tmp_path / name).write_text("old\n")
        self.git("init", "-q")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "start")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return subprocess.run(("git", *arguments), check=True, capture_output=True, text=True).stdout.strip()

    def test_outside_git_there_is_none(self) -> None:
        assert git_state() == {}

    def test_before_the_first_commit_there_is_none(self) -> None:
        self.git("init", "-q")
        assert git_state() == {}

    def test_without_git_there_is_none(self, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert git_state() == {}

    def test_a_repository_that_git_will_not_read_is_told_and_not_recorded_as_none(
        self, commit: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own switch for its tests
        with pytest.raises(ExpungeError, match=r"dubious ownership .*; if you trust it: git config --global"):
            git_state()
        monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
        Path(".git/index").write_bytes(b"damaged")
        with pytest.raises(ExpungeError, match=r"^git status failed in "):
            git_state()

    @pytest.mark.parametrize(
        ("file", "dirty"),
        [(None, "false"), ("dvc.lock", "false"), ("new.py", "false"), ("code.py", "true")],
    )
    def test_changes_of_tracked_files_count_but_not_the_lock_that_dvc_writes(
        self, commit: str, file: str | None, dirty: str
    ) -> None:
        if file:
            Path(file).write_text("new\n")
        assert git_state() == {"git.commit": commit, "git.dirty": dirty}

    def test_a_change_above_the_working_directory_counts(
        self, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
        assert git_state()["git.dirty"] == "false"
        (tmp_path / "code.py").write_text("new\n")
        assert git_state()["git.dirty"] == "true"

    def test_asking_does_not_touch_the_index(self, commit: str, tmp_path: Path) -> None:
        index = tmp_path / ".git/index"
        os.utime(tmp_path / "code.py", (1, 1))  # a plain git status would now renew the index
        before = index.read_bytes()
        git_state()
        assert index.read_bytes() == before
        self.git("status")
        assert index.read_bytes() != before


def test_names_of_nested_parameters_are_joined_by_dots() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": {}}
    assert flatten(nested) == {"a.b": 1, "a.c.d": [1, 2], "e": None}


def test_a_record_names_the_device_that_was_asked_for_and_not_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tasks.engine.device  # noqa: F401  # stages that compute have it

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert environment(Runtime(device="cpu"))["device"] == "CPU"
