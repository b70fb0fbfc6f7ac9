from __future__ import annotations

import subprocess
import sys

import pytest

from flows._plan import plan
from flows._reproduction import Reproduction
from tasks.core.errors import ExpungeError
from tests.flows.project import INPUTS, Project


def test_the_plan_puts_every_stage_after_those_it_depends_on(project: Project) -> None:
    planned = plan(project.root, None)
    assert sorted(planned.stages) == sorted(INPUTS)
    for stage, inputs in INPUTS.items():
        assert all(planned.stages.index(name) < planned.stages.index(stage) for name in inputs)
    assert planned.others == []


def test_a_target_selects_its_ancestors_and_names_the_others(project: Project) -> None:
    planned = plan(project.root, "unlearn")
    assert planned.stages == ["split", "train", "unlearn"]
    assert sorted(planned.others) == ["audit", "finetune", "mia", "report", "retrain"]


def test_an_unknown_target_names_the_known_stages(project: Project) -> None:
    with pytest.raises(ExpungeError, match="no stage 'trian'; it has: split, train"):
        plan(project.root, "trian")


def test_a_dvc_yaml_that_does_not_parse_is_one_line(project: Project) -> None:
    (project.root / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(ExpungeError, match=r"^dvc dag failed: .*dvc\.yaml") as caught:
        plan(project.root, None)
    assert "\n" not in str(caught.value)


def test_a_project_without_stages_is_refused(project: Project) -> None:
    (project.root / "dvc.yaml").unlink()
    with pytest.raises(ExpungeError, match="no stages"):
        plan(project.root, None)


def test_files_tracked_by_dvc_are_checked_but_are_no_stages(project: Project) -> None:
    (project.root / "images").write_text("pixels")
    subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "images"], cwd=project.root, check=True)
    text = (project.root / "dvc.yaml").read_text()
    (project.root / "dvc.yaml").write_text(text.replace("deps: [split.sh]", "deps: [split.sh, images]"))
    planned = plan(project.root, None)
    assert planned.sources == ["images.dvc"]
    assert sorted(planned.stages) == sorted(INPUTS)
    with Reproduction(project.root, planned, force=False, variables={}) as dvc:
        assert dvc.follow("split", print) == "success"
