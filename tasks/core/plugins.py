"""Registries of choices: the names that ``params.yaml`` may select.

A room such as ``tasks/methods`` holds one file a choice. The file's name is the choice's name, so
the known names are read off the folder without importing anything, and only the chosen file is
ever imported. That keeps start-up short and lets DVC track just the file that is used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Generic, TypeVar

from tasks.core.errors import ExpungeError

T = TypeVar("T")


def choices(room: str) -> tuple[str, ...]:
    """Names of the choices in a room, sorted; ``room`` is a folder of ``tasks/``.

    Files whose name begins with an underscore are the room's own parts, not choices.
    """
    folder = Path(__file__).parents[1] / room
    return tuple(sorted(file.stem for file in folder.glob("*.py") if file.stem[0] != "_"))


class Registry(Generic[T]):
    """The choices of one room, each registered by its own file.

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
            If the room has no such file; the message lists the known names.
        """
        known = choices(self.room)
        if name not in known:
            raise ExpungeError(f"{name!r} is not in tasks/{self.room}; known: {', '.join(known)}")
        importlib.import_module(f"tasks.{self.room}.{name}")
        if name not in self._entries:
            raise ExpungeError(f"tasks/{self.room}/{name}.py registers nothing; add @register")
        return self._entries[name]
