"""Everything that a Git repository keeps: objects that a branch leads to, and those that nothing leads to."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.core.temporary import temporary_folder

IN_MEMORY = 1 << 26
"""Bytes of an object that are held in memory; more goes to a temporary file."""

SUBMODULE, FOLDER = b"160000", b"40000"
"""Modes of entries of a tree, as Git stores them."""

DAMAGED = "missing"
"""What Git says of an object that is there, but cannot be read."""

Content = bytes | Path


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a repository; of the kind :data:`DAMAGED` if Git cannot read it."""

    id: str
    kind: str
    size: int


def all_objects(root: Path) -> list[Entry]:
    """Return every object that is there, in packs, alone, or borrowed from another repository.

    Raises
    ------
    ExpungeError
        If Git cannot read the repository.
    """
    told = git.call(
        *("cat-file", "--batch-all-objects", "--unordered"),
        "--batch-check=%(objectname) %(objecttype) %(objectsize)",
        root=root,
        options=git.PLAIN,
    )
    lines = (line.split() for line in told.decode().splitlines())
    return [Entry(line[0], line[1], int(line[2]) if len(line) == 3 else 0) for line in lines]


def read_all(root: Path, ids: Iterable[str], damaged: Callable[[str], None]) -> Iterator[tuple[str, Content]]:
    """Read objects one by one; a large one is handed out as a temporary file, which is gone afterwards.

    Parameters
    ----------
    root
        The repository's.
    ids
        Of objects.
    damaged
        Is told the id of each that cannot be read.
    """
    left = list(ids)
    while left:
        done = 0
        for id_, content in _batch(root, left):
            done += 1
            if content is None:
                damaged(id_)
            else:
                yield id_, content
        if done == len(left):
            return
        damaged(left[done])  # Git gave up over it
        left = left[done + 1 :]


def _batch(root: Path, ids: list[str]) -> Iterator[tuple[str, Content | None]]:
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{each}\n" for each in ids).encode())
        names.seek(0)
        process = subprocess.Popen(
            ("git", *git.PLAIN, "cat-file", "--batch"),
            cwd=root,
            stdin=names,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "GIT_NO_LAZY_FETCH": "1"},
        )
        assert process.stdout is not None  # noqa: S101
        try:
            for id_ in ids:
                head = process.stdout.readline().split()
                if not head:
                    return
                if len(head) < 3:  # "<id> missing"
                    yield id_, None
                    continue
                with _content(process.stdout, int(head[2])) as content:
                    if content is None:
                        return
                    yield id_, content
                process.stdout.read(1)
        finally:
            process.stdout.close()
            process.kill()
            process.wait()


@contextmanager
def _content(stream: IO[bytes], size: int) -> Iterator[Content | None]:
    if size <= IN_MEMORY:
        data = stream.read(size)
        yield data if len(data) == size else None
        return
    with temporary_folder() as folder:
        left = size
        with (folder / "object").open("wb") as file:
            while left and (block := stream.read(min(left, 1 << 20))):
                file.write(block)
                left -= len(block)
        yield None if left else folder / "object"


class Trees:
    """The folders of all commits.

    Parameters
    ----------
    root
        The repository's.
    objects
        All objects that are there.
    """

    def __init__(self, root: Path, objects: Iterable[Entry]) -> None:
        length = 32 if git.call("rev-parse", "--show-object-format", root=root).strip() == b"sha256" else 20
        kinds = {each.id: each.kind for each in objects}
        trees = [id_ for id_, kind in kinds.items() if kind == "tree"]
        commits = [id_ for id_, kind in kinds.items() if kind == "commit"]
        self.damaged: list[str] = []
        read = read_all(root, trees, self.damaged.append)
        self._entries = {id_: list(_entries(_bytes(content), length)) for id_, content in read}
        read = read_all(root, commits, self.damaged.append)
        self.tree_of = {id_: _bytes(content).split(b"\n", 1)[0][5:].decode() for id_, content in read}

    def places(
        self, wanted: frozenset[str], *, by_path: Callable[[str], bool]
    ) -> dict[tuple[str, str], set[str]]:
        """Return where objects lie, ``(path, object)``, and the commits that have them there.

        Parameters
        ----------
        wanted
            Ids of objects.
        by_path
            Tells of a path whether what lies there is wanted, whatever it is.
        """
        paths: dict[str, bool] = {}

        def named(path: str) -> bool:
            if path not in paths:
                paths[path] = by_path(path)
            return paths[path]

        found: dict[tuple[str, str], set[str]] = {}
        known: dict[tuple[str, str], list[tuple[str, str]]] = {}

        def below(tree: str, prefix: str) -> list[tuple[str, str]]:
            if (tree, prefix) not in known:
                here: list[tuple[str, str]] = []
                for mode, name, id_ in self._entries.get(tree, ()):
                    path = prefix + name
                    if mode == FOLDER:
                        here += below(id_, f"{path}/")
                    elif mode != SUBMODULE and (id_ in wanted or named(path)):
                        here.append((path, id_))
                known[tree, prefix] = here
            return known[tree, prefix]

        for commit, tree in self.tree_of.items():
            for place in below(tree, ""):
                found.setdefault(place, set()).add(commit)
        return found


def reachable_commits(root: Path) -> frozenset[str]:
    """Return the commits that a branch, tag, stash or reflog leads to.

    Raises
    ------
    ExpungeError
        If Git cannot read the history.
    """
    told = git.call("rev-list", "--all", "--reflog", root=root, options=git.PLAIN)
    return frozenset(told.decode().split())


def _entries(tree: bytes, length: int) -> Iterator[tuple[bytes, str, str]]:
    place = 0
    while place < len(tree):
        blank, end = tree.index(b" ", place), tree.index(b"\0", place)
        id_ = tree[end + 1 : end + 1 + length].hex()
        yield tree[place:blank], tree[blank + 1 : end].decode(errors="surrogateescape"), id_
        place = end + 1 + length


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def folder_of(root: Path) -> Path:
    """Return the folder in which Git keeps what all work trees of a repository share.

    Raises
    ------
    ExpungeError
        If there is none.
    """
    if git.git_folder(root) is None:
        raise ExpungeError(f"{root} lies in no Git repository")
    told = git.call("rev-parse", "--git-common-dir", root=root).decode(errors="surrogateescape").rstrip("\n")
    return (root / told).resolve()
