"""Git repositories beside the project's own: a clone in ``data``, a bare one, what a submodule left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.erasure.git_objects import folder_of
from tasks.erasure.pointers import is_environment
from tasks.erasure.stores_git import GitHistory

BARE = ("HEAD", "objects", "refs")
"""What a folder of Git has, wherever it lies."""


def others(root: Path, *beside: Path) -> tuple[list[Path], list[Path]]:
    """Return the repositories below a project that are neither its own nor its submodules.

    Parameters
    ----------
    root
        The project's.
    beside
        Other folders, such as a source that lies elsewhere: they are searched, and the repository that each
        lies in counts, too.

    Returns
    -------
    readable
        Folders that Git can be called in.
    damaged
        Folders that look like repositories, and which Git does not take for ones.
    """
    known = set(_own(root))
    readable, damaged = [], []
    for path in _looking_like_one(root, *beside):
        where = _folder_of(path)
        if where is None or not _is_meant(path, where):
            damaged.append(path)
        elif where not in known:
            known.add(where)
            readable.append(path)
    for path in beside:
        if (where := _folder_of(path)) is not None and where not in known:
            known.add(where)
            readable.append(Path(git.ask("rev-parse", "--show-toplevel", root=path) or path))
    return readable, damaged


def _own(root: Path) -> Iterator[Path]:
    """Folders of Git of a repository and of its submodules that are here."""
    if (where := _folder_of(root)) is None:
        return
    yield where
    for path in GitHistory(root).submodules():
        yield from _own(root / path)


def _folder_of(path: Path) -> Path | None:
    try:
        return folder_of(path) if path.is_dir() else None
    except ExpungeError:
        return None


def _is_meant(path: Path, where: Path) -> bool:
    """Whether Git found the repository that lies at a path, not one around it."""
    own = path / ".git"
    return (not own.is_dir() and own.exists()) or where in {own.resolve(), path.resolve()}


def _looking_like_one(root: Path, *beside: Path) -> Iterator[Path]:
    own = _folder_of(root)
    for top in (root, *beside, *([own / "modules"] if own else [])):  # there a submodule leaves its history
        for folder, folders, files in os.walk(top):
            path = Path(folder)
            inside = path != top
            if inside and (".git" in folders or ".git" in files or set(BARE) <= {*folders, *files}):
                yield path
            folders[:] = [each for each in folders if _enters(path / each, root)]


def _enters(path: Path, root: Path) -> bool:
    return path.name != ".git" and path != root / ".dvc/cache" and not is_environment(path)
