"""Choices that installed packages offer, and the files that stand for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tasks
from tasks.core import plugins
from tasks.core.errors import ExpungeError
from tasks.core.installed import MARK, _points, offered
from tasks.core.plugins import Registry, choices, gone, instead, stand_for
from tests.packages import install

ROOM = "room_of_the_test"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A room with one file, beside a folder of packages that is searched."""
    folder = tmp_path / ROOM
    folder.mkdir()
    (folder / "own.py").write_text("x = 1\n")
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(plugins, "__file__", str(tmp_path / "core/plugins.py"))
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    monkeypatch.syspath_prepend(str(site))
    _points.cache_clear()
    yield folder
    for name in ("my_nets", "other_nets"):
        sys.modules.pop(name, None)


def offer(
    room: Path,
    name: str = "ant",
    package: str = "my-nets",
    code: str = "class Net: pass\n",
    version: str = "1.0",
) -> None:
    _points.cache_clear()
    install(room.parent / "site", package, code, {f"expunge.{ROOM}": {name: "Net"}}, version)


def refusal(name: str) -> str:
    with pytest.raises(ExpungeError) as caught:
        Registry[type](ROOM).get(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_a_package_offers_is_a_choice_and_nothing_is_imported(room: Path) -> None:
    offer(room, code="raise RuntimeError\n")
    assert choices(ROOM) == ("ant", "own")
    assert offered(ROOM)["ant"].label == "my-nets 1.0"
    stand_for(ROOM, "ant")
    assert choices(ROOM) == ("ant", "own")
    assert "my_nets" not in sys.modules


def test_what_a_package_offers_is_loaded_once_a_file_stands_for_it(room: Path) -> None:
    offer(room)
    assert refusal("ant") == (
        f"tasks/{ROOM}/ant.py does not say that my-nets 1.0 is installed as it is now, so DVC does not know; "
        "renew it: python -m tasks.check"
    )
    assert stand_for(ROOM, "ant") == room / "ant.py"
    assert stand_for(ROOM, "ant") is None
    assert Registry[type](ROOM).get("ant").__name__ == "Net"
    mark, said = (room / "ant.py").read_text().splitlines()
    assert mark == MARK
    assert said.startswith("# ant is my_nets:Net of my-nets 1.0, whose files have MD5 ")


@pytest.mark.parametrize("what", ["version", "code"])
def test_another_version_or_other_code_is_refused_until_the_file_is_renewed(room: Path, what: str) -> None:
    offer(room)
    stand_for(ROOM, "ant")
    before = (room / "ant.py").read_text()
    offer(room, **({"version": "1.1"} if what == "version" else {"code": "class Net: y = 2\n"}))
    assert "renew it: python -m tasks.check" in refusal("ant")
    assert stand_for(ROOM, "ant") == room / "ant.py"
    assert (room / "ant.py").read_text() != before
    assert Registry[type](ROOM).get("ant").__name__ == "Net"


def test_a_file_that_stands_for_a_package_which_is_gone_says_so(room: Path) -> None:
    offer(room)
    stand_for(ROOM, "ant")
    (room.parent / "site/my_nets.dist-info/entry_points.txt").unlink()
    _points.cache_clear()
    assert choices(ROOM) == ("own",)
    assert instead(ROOM, "ant").startswith(
        f"tasks/{ROOM}/ant.py says: ant is my_nets:Net of my-nets 1.0, whose"
    )
    assert refusal("ant").endswith("; that package is not installed")
    assert instead(ROOM, "bee") == "known: own"
    assert gone(ROOM, "ant").endswith("; that package is not installed")
    assert gone(ROOM, "bee") == gone(ROOM, "own") == gone(ROOM, "../ant") == ""


def test_the_name_of_a_file_is_refused(room: Path) -> None:
    offer(room, "own")
    with pytest.raises(ExpungeError) as caught:
        choices(ROOM)
    assert str(caught.value) == (
        f"own of my-nets 1.0 (entry point expunge.{ROOM}) has the name of tasks/{ROOM}/own.py; "
        "rename the entry point, or uninstall the package"
    )


def test_one_name_of_two_packages_is_refused(room: Path) -> None:
    offer(room)
    offer(room, package="other-nets")
    with pytest.raises(
        ExpungeError, match=r"^ant of my-nets 1.0 \(entry point .*\) is offered by other-nets 1.0, too"
    ):
        choices(ROOM)


@pytest.mark.parametrize(
    ("code", "problem"),
    [("import no_such_module\n", "ModuleNotFoundError: No module"), ("x = 1\n", "AttributeError: ")],
)
def test_a_package_that_cannot_be_loaded_is_one_line(room: Path, code: str, problem: str) -> None:
    offer(room, code=code)
    stand_for(ROOM, "ant")
    assert refusal("ant").startswith(
        f"ant of my-nets 1.0 (entry point expunge.{ROOM}) cannot be loaded: {problem}"
    )


def test_a_package_without_its_module_is_one_line(room: Path) -> None:
    offer(room)
    (room.parent / "site/my_nets/__init__.py").unlink()
    (room.parent / "site/my_nets").rmdir()
    with pytest.raises(ExpungeError, match=r"there is no module my_nets; install it again$"):
        stand_for(ROOM, "ant")


@pytest.mark.parametrize("name", ["../ant", "a/b", "_ant", "ant.bee"])
def test_a_name_that_no_module_could_have_is_refused(room: Path, name: str) -> None:
    offer(room, name)
    with pytest.raises(ExpungeError, match=r"is no name for a choice; letters, digits and _ would be right$"):
        choices(ROOM)
