from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from flows import _reproduction
from flows._plan import Plan
from flows._reproduction import Reproduction
from tasks.core.dvc_failure import StageError
from tests.flows.project import MARKED_SLEEP, Project, alive, until

SPLIT = Plan(sources=[], stages=["split"], others=[])
TRAIN = Plan(sources=[], stages=["split", "train"], others=[])
ALL = Plan(
    sources=[],
    stages=["split", "train", "retrain", "unlearn", "finetune", "audit", "mia", "report"],
    others=[],
)


def follow(project: Project, planned: Plan, *, force: bool = False) -> tuple[dict[str, str], list[str]]:
    lines: list[str] = []
    with Reproduction(project.root, planned, force=force, variables={}) as dvc:
        return {stage: dvc.follow(stage, lines.append) for stage in planned.stages}, lines


def failure(project: Project) -> tuple[str, StageError]:
    """The first stage that fails, and how."""
    with Reproduction(project.root, TRAIN, force=False, variables={}) as dvc:
        for stage in TRAIN.stages:
            try:
                dvc.follow(stage, print)
            except StageError as error:
                return stage, error
    raise AssertionError("no stage failed")


def interrupt_when_started(line: str) -> None:
    if line == "started":
        raise KeyboardInterrupt


def test_stages_run_once_and_are_cached_after_that(project: Project) -> None:
    assert set(follow(project, ALL)[0].values()) == {"success"}
    assert set(follow(project, ALL)[0].values()) == {"cached"}


def test_outputs_restored_from_the_run_cache_are_cached(project: Project) -> None:
    follow(project, TRAIN)
    (project.root / "dvc.lock").unlink()
    (project.root / "data/train/out").unlink()
    statuses, lines = follow(project, TRAIN)
    assert statuses["train"] == "cached"
    assert project.has("train")
    assert any("is cached - skipping run" in line for line in lines)


def test_what_depends_on_a_stage_that_ran_is_evaluated_after_it(project: Project) -> None:
    follow(project, ALL)
    project.script("train", "true")  # another command, the same output
    with (project.root / "retrain.sh").open("a") as script:
        script.write("echo more >> data/retrain/out\n")
    statuses, _ = follow(project, ALL)
    cached = {stage for stage, status in statuses.items() if status == "cached"}
    assert cached == {"split", "unlearn", "finetune", "audit"}


def test_force_runs_what_is_up_to_date(project: Project) -> None:
    follow(project, SPLIT)
    assert follow(project, SPLIT, force=True)[0] == {"split": "success"}


def test_output_arrives_line_by_line_under_its_stage(project: Project) -> None:
    project.write(split="echo of split", train=r"printf '10%%\r50%%\r100%%\n\033[31mred\033[0m\n\377\n'")
    said: dict[str, list[str]] = {"split": [], "train": []}
    with Reproduction(project.root, TRAIN, force=False, variables={}) as dvc:
        for stage in TRAIN.stages:
            dvc.follow(stage, said[stage].append)
    assert "of split" in said["split"]
    assert "Running stage 'train':" in said["train"]
    assert "100%" in said["train"]
    assert "red" in said["train"]
    assert "\N{REPLACEMENT CHARACTER}" in said["train"]
    assert not any("10%" in line or line == "" for line in said["train"])


def test_stages_get_the_environment_and_the_python_of_the_flow(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    project.write(split='python -c "import sys; print(sys.executable)"; echo parent=$EXPUNGE_PIPELINE')
    lines: list[str] = []
    with Reproduction(project.root, SPLIT, force=False, variables={"EXPUNGE_PIPELINE": "ab:1"}) as dvc:
        dvc.follow("split", lines.append)
    assert sys.executable in lines
    assert "parent=ab:1" in lines


@pytest.mark.parametrize(
    ("command", "message", "transient"),
    [
        (
            "echo 'expunge train: x is missing' >&2; exit 2",
            "x is missing (exit status 2)",
            False,
        ),
        ("echo 'ValueError: defect'; exit 1", "ValueError: defect (exit status 1)", True),
        ("exit 74", "exit status 74", True),
        ("echo no; exit 127", "no (exit status 127)", False),
        ("echo epoch 3; kill -9 $$", "epoch 3 (killed by SIGKILL)", True),
        ("echo epoch 3; echo Killed >&2; exit 137", "epoch 3 (killed by SIGKILL)", True),
        (
            "echo 'sh: line 1: 41 Segmentation fault (core dumped) sh train.sh' >&2; exit 139",
            "killed by SIGSEGV",
            True,
        ),
        (
            "echo epoch 3; echo 'sh: line 1:   941 Terminated              sh train.sh' >&2; exit 143",
            "epoch 3 (killed by SIGTERM)",
            True,
        ),
        ("echo Killed in epoch 3; exit 137", "Killed in epoch 3 (killed by SIGKILL)", True),
        ("echo ERROR: of the stage; exit 137", "ERROR: of the stage (killed by SIGKILL)", True),
    ],
)
def test_a_failure_says_the_stages_last_line_and_whether_to_try_again(
    project: Project, command: str, message: str, transient: bool
) -> None:
    project.write(train=command)
    stage, error = failure(project)
    assert stage == "train"
    assert str(error) == message
    assert error.transient is transient


def test_a_missing_input_is_the_fault_of_the_stage_that_needs_it(project: Project) -> None:
    (project.root / "train.sh").unlink()
    stage, error = failure(project)
    assert stage == "train"
    assert "No such file or directory" in str(error)
    assert "train.sh" in str(error)
    assert not error.transient


def test_an_output_held_by_another_dvc_is_worth_another_try(project: Project) -> None:
    project.write(train=MARKED_SLEEP)
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        cwd=project.root,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(project.pids, what="the other stage")
        _, error = failure(project)
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
    assert "is busy" in str(error)
    assert f"(PID {other.pid})" in str(error)
    assert error.transient


def test_following_a_failed_stage_again_does_not_repeat_the_stages_before_it(project: Project) -> None:
    project.write(
        split="echo split >> count", train="echo train >> count; test -e second || { touch second; exit 1; }"
    )
    with Reproduction(project.root, TRAIN, force=True, variables={}) as dvc:
        assert dvc.follow("split", print) == "success"
        with pytest.raises(StageError):
            dvc.follow("train", print)
        assert dvc.follow("train", print) == "success"
    assert (project.root / "count").read_text().split() == ["split", "train", "train"]


def test_an_interruption_ends_the_stage_and_its_children(project: Project) -> None:
    project.write(split=MARKED_SLEEP)
    with (
        Reproduction(project.root, SPLIT, force=False, variables={}) as dvc,
        pytest.raises(KeyboardInterrupt),
    ):
        dvc.follow("split", interrupt_when_started)
    assert len(project.pids()) == 2
    assert not any(map(alive, project.pids()))


def test_a_stage_that_ignores_sigterm_is_killed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reproduction, "GRACE", 0.5)
    project.write(split=f"trap '' TERM; {MARKED_SLEEP}")
    with (
        Reproduction(project.root, SPLIT, force=False, variables={}) as dvc,
        pytest.raises(KeyboardInterrupt),
    ):
        dvc.follow("split", interrupt_when_started)
    until(lambda: not any(map(alive, project.pids())), what="the end of the stage")
