from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import load
from tasks.overrides import Scalar, override, parse
from tests.flows.conftest import REPOSITORY


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return path


def test_only_the_line_of_the_key_changes(params: Path) -> None:
    override(params, {"unlearn.method": "none"})
    before = params.read_text().splitlines()
    override(params, {"unlearn.method": "ssd", "split.resize": 32})
    after = params.read_text().splitlines()
    assert len(after) == len(before)
    changed = [line.split("#")[0].strip() for line, old in zip(after, before, strict=True) if line != old]
    assert sorted(changed) == ["method: ssd", "resize: 32"]
    assert sum("#" in line for line in after) == sum("#" in line for line in before)


def test_a_file_that_says_it_already_is_not_written(params: Path) -> None:
    method = load(params).unlearn.method
    before = params.stat()
    override(params, {"unlearn.method": method})
    assert (params.stat().st_ino, params.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("value", ["no", "010", "1e-3", "null", "~", "a: b", "# x", "'quoted'", "ünï"])
def test_text_stays_text(params: Path, value: str) -> None:
    override(params, {"report.title": value})
    assert load(params).report.title == value


@pytest.mark.parametrize("value", [1e-5, 5e-324, 0.1, 1, 123456789.0])
def test_numbers_keep_their_value(params: Path, value: float) -> None:
    override(params, {"train.recipe.lr": value})
    assert load(params).train.recipe.lr == value


def test_null_and_lists_are_values_too(params: Path) -> None:
    override(params, {"split.forget.kind": "class", "split.forget.classes": [3, 1], "finetune.recipe": None})
    assert load(params).split.forget.classes == (3, 1)
    assert load(params).finetune.recipe is None
    assert "resize: null" in params.read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"unlearn.metod": "ssd"}, "'unlearn.metod' is not in .*; keys of unlearn: method, seed"),
        ({"lr": 1}, "'lr' is not in .*; keys of .*params.yaml: split, train"),
        ({"": 1}, "'' is not in"),
        ({"unlearn.": 1}, "'unlearn.' is not in"),
        ({"unlearn.method.name": "x"}, "'unlearn.method.name' is not in .*; keys of unlearn.method: none"),
        ({"unlearn.method": "magic"}, "unlearn.method=magic: unlearn: method is 'magic'; known: "),
        ({"unlearn.method": None}, "unlearn.method is None"),
        ({"unlearn": "ssd"}, "unlearn is 'ssd'"),
        ({"train.recipe.epochs": True}, "train.recipe.epochs is True"),
        ({"train.recipe.epochs": "3"}, "train.recipe.epochs is '3'"),
        ({"train.recipe.epochs": 0}, "train.recipe.epochs is 0"),
        ({"train.recipe.lr": float("nan")}, "train.recipe.lr is nan"),
        ({"train.recipe.lr": float("inf")}, "train.recipe.lr is inf"),
        ({"mia.folds": 10, "mia.confidence": 2}, "mia.confidence is 2"),
    ],
)
def test_a_bad_override_is_one_line_and_leaves_the_file(
    params: Path, overrides: dict[str, Scalar | list[Scalar]], message: str
) -> None:
    before = params.read_bytes()
    with pytest.raises(ExpungeError, match=message) as caught:
        override(params, overrides)
    assert "\n" not in str(caught.value)
    assert params.read_bytes() == before
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("text", ["", "[]", "split: [", "a: 1\na: 2\n", "\ufeff"])
def test_a_params_file_that_is_none_is_refused(params: Path, text: str) -> None:
    params.write_text(text)
    with pytest.raises(ExpungeError, match=re.escape(str(params))):
        override(params, {"unlearn.method": "ssd"})


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("a.b=1", 1),
        ("a.b=1e-3", 0.001),
        ("a.b=no", "no"),
        ("a.b=true", True),
        ("a.b=null", None),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=x=y", "x=y"),
        ("a.b='1'", "1"),
    ],
)
def test_values_of_the_command_line_are_read_as_dvc_reads_them(assignment: str, value: object) -> None:
    key, parsed = parse(assignment)
    assert key == "a.b"
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("assignment", ["", "a", "=1", " =1", "a=[1", "a={"])
def test_an_assignment_that_is_none_is_one_line(assignment: str) -> None:
    with pytest.raises(ExpungeError, match=r"^--set ") as caught:
        parse(assignment)
    assert "\n" not in str(caught.value)
