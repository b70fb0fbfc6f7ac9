"""Registries of choices: the names that ``params.yaml`` may select.

A room such as ``tasks/methods`` holds one file a choice. The file's name is the choice's name, so
the known names are read off the folder without importing anything, and only the chosen file is
ever imported. That keeps start-up short and lets DVC track just the file that is used. Installed
packages may offer further choices, see :mod:`tasks.core.installed`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Generic, TypeVar

from tasks.core.errors import ExpungeError
from tasks.core.installed import Package, offered, renew, stands_in

T = TypeVar("T")


def choices(room: str) -> tuple[str, ...]:
    """Names of the choices in a room, sorted; ``room`` is a folder of ``tasks/``.

    Files whose name begins with an underscore are the room's own parts, not choices.

    Raises
    ------
    ExpungeError
        If an installed package offers a name that the room has, or that another package offers.
    """
    return tuple(sorted({*built_in(room), *packages(room)}))


def built_in(room: str) -> tuple[str, ...]:
    """Names of the choices that are files of a room, sorted."""
    files = (file for file in _folder(room).glob("*.py") if file.stem[0] != "_")
    return tuple(sorted(file.stem for file in files if not stands_in(file)))


def instead(room: str, name: str) -> str:
    """What would be right instead of a name that is none of the choices."""
    return gone(room, name).removeprefix("; ") or f"known: {', '.join(choices(room))}"


def gone(room: str, name: str) -> str:
    """What to add to a line about a name whose package is not installed; empty if it stands for none."""
    file = _folder(room) / f"{name}.py"
    if Path(name).name != name or not file.is_file() or not stands_in(file):
        return ""
    said = file.read_text(encoding="utf-8").splitlines()[-1].removeprefix("# ")
    return f"; tasks/{room}/{name}.py says: {said}; that package is not installed"


def packages(room: str) -> dict[str, Package]:
    """Choices of a room that installed packages offer, by name; errors as :func:`choices`."""
    found = offered(room)
    for name in sorted(found.keys() & set(built_in(room))):
        raise ExpungeError(
            f"{found[name].said()} has the name of tasks/{room}/{name}.py; rename the entry point, "
            "or uninstall the package"
        )
    return found


def stand_for(room: str, name: str) -> Path | None:
    """See that DVC finds a file for a choice: write the one that stands for a package.

    Returns
    -------
    Path or None
        The file if it was written, or None where there was nothing to do.
    """
    package = packages(room).get(name)
    folder = _folder(room)
    return folder / f"{name}.py" if package and renew(package, folder) else None


def _folder(room: str) -> Path:
    return Path(__file__).parents[1] / room


class Registry(Generic[T]):
    """The choices of one room, each registered by its own file or offered by a package.

    Parameters
    ----------
    room
        Folder of ``tasks/`` that holds the files, e.g. ``"methods"``.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self._entries: dict[str, T] = {}

    def register(self, entry: T) -> T:
        """Class or function decorator; the name is that of the file it stands in."""
        name = entry.__module__.rpartition(".")[2]
        if name in self._entries:
            raise ValueError(f"tasks/{self.room}/{name}.py registers two entries; one file, one entry")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """Import and return the entry called ``name``.

        Raises
        ------
        ExpungeError
            If neither the room nor a package has it, the message then lists the known names; if the
            package cannot be loaded, or is not the one that stands in the room.
        """
        if name not in choices(self.room):
            raise ExpungeError(f"{name!r} is not in tasks/{self.room}; {instead(self.room, name)}")
        package = packages(self.room).get(name)
        if package:
            return self._loaded(package)
        importlib.import_module(f"tasks.{self.room}.{name}")
        if name not in self._entries:
            raise ExpungeError(f"tasks/{self.room}/{name}.py registers nothing; add @register")
        return self._entries[name]

    def _loaded(self, package: Package) -> T:
        stand_in = _folder(self.room) / f"{package.name}.py"
        if not stand_in.exists() or stand_in.read_text(encoding="utf-8") != package.stand_in():
            raise ExpungeError(
                f"tasks/{self.room}/{package.name}.py does not say that {package.label} is installed as "
                "it is now, so DVC does not know; renew it: python -m tasks.check"
            )
        try:
            entry: T = EntryPoint(package.name, package.target, f"expunge.{self.room}").load()
        except Exception as error:  # whatever a stranger's module does while it is imported
            raise ExpungeError(
                f"{package.said()} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        return entry
