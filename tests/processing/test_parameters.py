from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.params import read_yaml
from tasks.processing import parameters
from tasks.processing.parameters import PARAMS, SAVED, overridden, restore

PROJECT = Path(__file__).parents[2]
VALUES: dict[str, Any] = {
    "train.start": "base",
    "split.forget.kind": "ids",
    "split.forget.ids_file": "data/requests/batch.txt",
    "split.forget.classes": [],
    "split.forget.fraction": None,
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)


def value(key: str) -> object:
    tree = read_yaml(PARAMS)
    for part in key.split("."):
        tree = tree[part]
    return tree


def edit(old: str, new: str) -> None:
    text = PARAMS.read_text()
    assert old in text
    PARAMS.write_text(text.replace(old, new, 1))


def test_values_stand_there_for_the_time_of_the_stages_alone() -> None:
    before = PARAMS.read_bytes()
    with overridden(VALUES):
        assert {key: value(key) for key in VALUES} == VALUES
        assert SAVED.exists()
    assert PARAMS.read_bytes() == before
    assert not SAVED.exists()


def test_a_stage_that_fails_leaves_the_users_file() -> None:
    before = PARAMS.read_bytes()
    with pytest.raises(RuntimeError, match="stage"), overridden(VALUES):
        raise RuntimeError("stage")
    assert PARAMS.read_bytes() == before
    assert not SAVED.exists()


def test_a_value_that_is_refused_leaves_the_users_file() -> None:
    before = PARAMS.read_bytes()
    with pytest.raises(ExpungeError), overridden({"train.start": "nowhere"}):
        pass
    assert PARAMS.read_bytes() == before
    assert not SAVED.exists()


@pytest.mark.parametrize("at", ["write_json", "write_text", "the stages"])
def test_after_a_kill_at_any_point_the_next_one_puts_the_users_file_back(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dying(function: Callable[..., None], wanted: Path) -> Callable[..., None]:
        def called(path: Path, given: object) -> None:
            function(path, given)
            if path == wanted:
                raise Killed

        return called

    before = PARAMS.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(parameters, "restore", lambda: None)  # a killed process puts nothing back
        if at != "the stages":
            wanted = SAVED if at == "write_json" else PARAMS
            patch.setattr(parameters, at, dying(getattr(parameters, at), wanted))
        with pytest.raises(Killed), overridden(VALUES):
            raise Killed
    assert SAVED.exists()
    assert [path.name for path in SAVED.parent.iterdir()] == [SAVED.name]
    restore()
    assert PARAMS.read_bytes() == before
    assert not SAVED.exists()
    restore()
    assert PARAMS.read_bytes() == before


def test_ends_of_lines_of_other_systems_stay() -> None:
    before = PARAMS.read_bytes().replace(b"\n", b"\r\n")
    PARAMS.write_bytes(before)
    with overridden(VALUES):
        assert value("train.start") == "base"
    assert PARAMS.read_bytes() == before


def test_a_value_that_is_refused_is_told_of_the_users_file() -> None:
    with (
        pytest.raises(ExpungeError, match=r"^params\.yaml with train\.start=nowhere"),
        overridden({"train.start": "nowhere"}),
    ):
        pass
    assert list(SAVED.parent.iterdir()) == []


def killed(monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """Leave the state of a process that was killed while its stages ran, or just before they did."""
    with monkeypatch.context() as patch:
        patch.setattr(parameters, "restore", lambda: None)
        with overridden(VALUES):
            pass
    if not late:
        saved = json.loads(SAVED.read_text())
        del saved["during"]
        SAVED.write_text(json.dumps(saved))


@pytest.mark.parametrize("late", [True, False])
def test_what_the_user_has_changed_since_stays(monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    own = {key: value(key) for key in VALUES}
    killed(monkeypatch, late=late)
    edit("epochs: ", "epochs: 1")  # of the user's
    changed = value("train.recipe.epochs")
    comment = PARAMS.read_text().count("#")
    restore()
    assert value("train.recipe.epochs") == changed
    assert {key: value(key) for key in VALUES} == own
    assert PARAMS.read_text().count("#") == comment
    assert not SAVED.exists()


def test_what_the_user_has_set_himself_where_a_batch_had_its_own_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed(monkeypatch, late=True)
    edit("kind: ids", "kind: class")
    edit("classes: []", "classes: [1]")
    restore()
    assert (value("split.forget.kind"), value("split.forget.classes")) == ("class", [1])
    assert value("train.start") != "base"


def test_a_change_while_the_stages_run_stays() -> None:
    own = value("train.start")
    with overridden(VALUES):
        edit("epochs: ", "epochs: 1")
        changed = value("train.recipe.epochs")
    assert (value("train.recipe.epochs"), value("train.start")) == (changed, own)


def test_a_file_that_is_gone_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PARAMS.read_bytes()
    killed(monkeypatch, late=True)
    PARAMS.unlink()
    restore()
    assert PARAMS.read_bytes() == before


def test_a_file_that_the_user_has_put_back_himself_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PARAMS.read_bytes()
    killed(monkeypatch, late=True)
    PARAMS.write_bytes(before)
    restore()
    assert PARAMS.read_bytes() == before
    assert not SAVED.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"before": "x"}', '{"before": 1, "values": {}}'])
def test_a_damaged_note_is_one_line_and_changes_nothing(text: str) -> None:
    before = PARAMS.read_bytes()
    SAVED.parent.mkdir()
    SAVED.write_text(text)
    with pytest.raises(ExpungeError, match=r"params\.json is damaged; restore params\.yaml: git checkout"):
        restore()
    assert PARAMS.read_bytes() == before


def test_a_file_that_the_user_has_broken_is_one_line_and_can_be_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = value("train.start")
    killed(monkeypatch, late=True)
    good = PARAMS.read_text()
    PARAMS.write_text(good + "\n: : broken [")
    with pytest.raises(ExpungeError, match=r"params\.yaml"):
        restore()
    assert SAVED.exists()
    PARAMS.write_text(good)
    restore()
    assert value("train.start") == own


def test_nothing_to_put_back_is_nothing() -> None:
    before = PARAMS.read_bytes()
    restore()
    assert PARAMS.read_bytes() == before
    assert not SAVED.parent.exists()
