"""Choices that installed packages offer by entry points, and the files that stand for them in the rooms.

A package adds a model, a method, a source or an attack by an entry point of the group ``expunge.models``,
``expunge.methods``, ``expunge.datasets`` or ``expunge.attacks``. DVC tracks files, so for a choice that is
used a file of its name lies in the room, too, and says which package it stands for: of which version, and
the digest of its code. Nothing is imported here.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import content_digest, write_text

MARK = "# Stands for an installed package; made by python -m tasks.check."


@dataclass(frozen=True)
class Package:
    """A choice that an installed package offers.

    Attributes
    ----------
    room, name
        Room that the choice belongs to, and its name there.
    target
        Module and attribute to load, as the package declares them.
    label
        Name and version of the package.
    """

    room: str
    name: str
    target: str
    label: str

    def digest(self) -> str:
        """MD5 of all files of the top-level package or module that the target lies in, as DVC takes it.

        Raises
        ------
        ExpungeError
            If there is no such module.
        """
        top = self.target.partition(":")[0].partition(".")[0]
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if folders:
            return content_digest(Path(folders[0]))
        if spec is None or not spec.origin or not Path(spec.origin).is_file():
            raise ExpungeError(f"{self.said()}: there is no module {top}; install it again")
        return content_digest(Path(spec.origin))

    def stand_in(self) -> str:
        """Text of the file that stands for the choice in its room."""
        said = f"{self.name} is {self.target} of {self.label}, whose files have MD5 {self.digest()}"
        return f"{MARK}\n# {said}\n"

    def said(self) -> str:
        """What the choice is, to begin a line on what is wrong with it."""
        return f"{self.name} of {self.label} (entry point expunge.{self.room})"


def offered(room: str) -> dict[str, Package]:
    """Choices of a room that installed packages offer, by name.

    Raises
    ------
    ExpungeError
        If two packages offer one name, or the name is none that a file of the room could have.
    """
    found: dict[str, Package] = {}
    for point in _points(f"expunge.{room}", tuple(sys.path)):
        label = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
        package = Package(room, point.name, point.value, label)
        if not point.name.isidentifier() or point.name.startswith("_"):
            raise ExpungeError(
                f"{package.said()}: that is no name for a choice; letters, digits and _ would be right"
            )
        if found.setdefault(point.name, package) != package:
            raise ExpungeError(
                f"{found[point.name].said()} is offered by {label}, too; uninstall one of them"
            )
    return found


@lru_cache
def _points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group)))


def stands_in(file: Path) -> bool:
    """Whether a file of a room stands for an installed package."""
    with file.open(encoding="utf-8", errors="replace") as text:
        return text.readline().rstrip() == MARK


def renew(package: Package, folder: Path) -> bool:
    """Write the file that stands for a package into its room; return whether it was another before.

    Parameters
    ----------
    package
        A choice that is used.
    folder
        The room.
    """
    file, text = folder / f"{package.name}.py", package.stand_in()
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return False
    write_text(file, text)
    return True
