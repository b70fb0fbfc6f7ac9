from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from tasks.core import plugins
from tasks.core.errors import ExpungeError
from tasks.core.plugins import Registry, choices

ROOM = "room_of_the_test"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A room of ``tasks`` that lies in a temporary folder, with a registry in it."""
    folder = tmp_path / ROOM
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from tasks.core.plugins import Registry\n"
        f"ENTRIES: Registry[object] = Registry({ROOM!r})\n"
        "register = ENTRIES.register\n"
    )
    monkeypatch.setattr(plugins, "__file__", str(tmp_path / "core/plugins.py"))
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    yield folder
    for name in [name for name in sys.modules if name.startswith(f"tasks.{ROOM}")]:
        del sys.modules[name]
    delattr(tasks, ROOM) if hasattr(tasks, ROOM) else None


def entry(room: Path, name: str, body: str) -> None:
    (room / f"{name}.py").write_text(f"from tasks.{ROOM} import register\n{body}")


def entries() -> Registry[type]:
    import importlib

    found: Registry[type] = importlib.import_module(f"tasks.{ROOM}").ENTRIES
    return found


ONE = "@register\nclass Entry: pass\n"


def test_the_choices_are_the_files_in_order_without_those_that_begin_with_an_underscore(room: Path) -> None:
    for name in ("zebra", "ant", "_parts", "__main__"):
        entry(room, name, ONE)
    (room / "notes.txt").write_text("")
    (room / "folder").mkdir()
    assert choices(ROOM) == ("ant", "zebra")


def test_listing_the_choices_imports_nothing(room: Path) -> None:
    entry(room, "broken", "raise RuntimeError\n")
    assert choices(ROOM) == ("broken",)
    assert f"tasks.{ROOM}.broken" not in sys.modules


def test_only_the_file_that_is_asked_for_is_imported(room: Path) -> None:
    entry(room, "good", ONE)
    entry(room, "broken", "raise RuntimeError\n")
    assert entries().get("good").__name__ == "Entry"
    assert entries().get("good") is entries().get("good")
    with pytest.raises(RuntimeError):
        entries().get("broken")


def test_the_name_is_the_files_whatever_the_class_is_called(room: Path) -> None:
    entry(room, "ant", ONE)
    entry(room, "bee", ONE)
    assert entries().get("ant").__module__ == f"tasks.{ROOM}.ant"
    assert entries().get("bee").__module__ == f"tasks.{ROOM}.bee"


@pytest.mark.parametrize("name", ["wasp", "", "_parts", "__init__", "ant.py", "../ant", "Ant", "os"])
def test_an_unknown_name_is_refused_with_the_known_ones(room: Path, name: str) -> None:
    for known in ("bee", "ant", "_parts"):
        entry(room, known, ONE)
    with pytest.raises(ExpungeError) as caught:
        entries().get(name)
    assert str(caught.value) == f"{name!r} is not in tasks/{ROOM}; known: ant, bee"


def test_a_file_that_registers_nothing_is_refused_with_the_remedy(room: Path) -> None:
    entry(room, "empty", "")
    with pytest.raises(ExpungeError) as caught:
        entries().get("empty")
    assert str(caught.value) == f"tasks/{ROOM}/empty.py registers nothing; add @register"


def test_a_file_that_registers_two_is_a_defect_each_time(room: Path) -> None:
    entry(room, "double", ONE + "@register\nclass Other: pass\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=f"tasks/{ROOM}/double.py registers two entries"):
            entries().get("double")


def test_registering_leaves_the_entry_as_it_is(room: Path) -> None:
    class Entry:
        pass

    assert entries().register(Entry) is Entry


@pytest.mark.parametrize("name", ["methods", "models", "datasets"])
def test_every_file_of_the_real_rooms_registers_one_entry(name: str) -> None:
    import importlib

    module = importlib.import_module(f"tasks.{name}")
    (found,) = [value for value in vars(module).values() if isinstance(value, Registry)]
    folder = Path(tasks.__path__[0]) / name
    assert set(choices(name)) == {path.stem for path in folder.glob("[!_]*.py")}
    for choice in choices(name):
        assert found.get(choice).__module__ == f"tasks.{name}.{choice}"
