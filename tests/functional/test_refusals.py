"""Bad input ends a stage with status 2 and one line, and leaves what was there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.functional.repository import Repository


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Case(NamedTuple):
    """A stage, what is done to a file before it runs, and a part of its complaint."""

    stage: str
    harm: Callable[[Path], None]
    file: str
    complaint: str


CASES = {
    "missing weights": Case(
        "unlearn", Path.unlink, "data/train/weights.safetensors", "weights.safetensors is missing; "
    ),
    "a flipped bit in the weights": Case(
        "unlearn", flip_a_bit, "data/train/weights.safetensors",
        "weights.safetensors is damaged: its tensors do not have the recorded SHA-256; ",
    ),
    "half of the images": Case("train", halve, "data/split/images/00000.npy", "00000.npy is damaged"),
    "half of the manifest": Case("mia", halve, "data/split/manifest.csv", "manifest.csv, line "),
    "half of the logits": Case("mia", halve, "data/retrain/logits.npy", "retrain/logits.npy is damaged"),
    "half of the figures": Case("report", halve, "data/mia/models.json", "models.json is not valid JSON"),
    "half of a table": Case("report", halve, "data/mia/roc.csv", "roc.csv"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_damaged_input_is_refused_and_nothing_is_written(repository: Repository, case: Case) -> None:
    case.harm(repository.root / case.file)
    before = repository.contents()
    done = repository.stage(case.stage, status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"expunge {case.stage}: data/")
    assert case.complaint in line
    assert repository.contents() == before


@pytest.mark.parametrize("stage", ["split", "mia"])
def test_parameters_that_do_not_parse_are_refused_with_their_line(repository: Repository, stage: str) -> None:
    repository.append("params.yaml", "x: [\n")
    last = len((repository.root / "params.yaml").read_text().splitlines()) + 1
    done = repository.stage(stage, status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"expunge {stage}: params.yaml does not parse: line {last}, column 1: ")


def test_an_unknown_method_is_refused_with_the_known_ones(repository: Repository) -> None:
    repository.change({"unlearn.method": "sssd"})
    done = repository.stage("split", status=2)
    assert done.stderr == (
        "expunge split: params.yaml: unlearn: method is 'sssd'; "
        "known: influence, neggrad_plus, none, reinit, ssd\n"
    )


WRONG = "params.yaml: unlearn.ssd.alpha is -1; input should be greater than 0\n"


def test_a_wrong_option_of_a_later_stage_ends_split(repository: Repository) -> None:
    repository.change({"unlearn.method": "ssd", "unlearn.ssd.alpha": -1, "split.seed": 7})
    lock = (repository.root / "dvc.lock").read_bytes()
    done = repository.run("dvc", "repro", status=255)
    assert f"expunge split: {WRONG}" in done.stderr
    assert "Running stage 'train'" not in done.stdout
    assert "Traceback" not in done.stderr
    assert (repository.root / "dvc.lock").read_bytes() == lock


def test_a_wrong_option_of_a_later_stage_ends_a_training_long_before_its_last_epoch(
    repository: Repository,
) -> None:
    repository.change({"train.recipe.epochs": 5000, "unlearn.method": "ssd", "unlearn.ssd.alpha": -1})
    before = repository.contents()
    done = repository.stage("train", status=2)
    assert done.stderr == f"expunge train: {WRONG}"
    assert 0 < done.stdout.count("epoch ") < 1000
    assert repository.contents() == before


@pytest.mark.parametrize("stage", ["split", "train"])
def test_help_says_what_a_stage_does_reads_and_writes(repository: Repository, stage: str) -> None:
    done = repository.run("python", "-m", f"tasks.{stage}", "--help")
    printed = " ".join(done.stdout.split())
    assert printed.startswith(f"usage: python -m tasks.{stage} [-h]")
    assert f"writes data/{stage}/. Usually started by: dvc repro {stage}" in printed


def test_an_unknown_argument_is_refused(repository: Repository) -> None:
    done = repository.run("python", "-m", "tasks.split", "--epochs", "3", status=2)
    assert "unrecognized arguments: --epochs 3" in done.stderr
