"""Paths that stay below a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import ExpungeError


def refuse_escaping(path: Path, references: Iterable[str]) -> None:
    """Refuse references that do not lie below the folder ``path``.

    Raises
    ------
    ExpungeError
        Naming the first that is absolute or goes up.
    """
    for name in references:
        if name.startswith("/") or ".." in name.split("/"):
            raise ExpungeError(
                f"{path}: {name!a} leaves the folder; a path below it is right, such as train/cat/001.png"
            )
