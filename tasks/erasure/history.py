"""Files in the commits of Git: of branches, tags, stashes and experiments, and of the reflog."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from tasks.core import git

EVERYWHERE = ("--all", "--reflog")
"""DVC queues experiments where only the reflog has them."""


def commits(root: Path) -> list[str]:
    """Return all commits, newest first."""
    return git.call("rev-list", *EVERYWHERE, root=root).decode().split()


def blobs(names: Iterable[str], root: Path) -> dict[str, bytes]:
    """Return the contents of blobs by their ids."""
    wanted = list(dict.fromkeys(names))
    answer = io.BytesIO(
        git.call("cat-file", "--batch", root=root, stdin="".join(f"{name}\n" for name in wanted))
    )
    found = {}
    for name in wanted:
        size = int(answer.readline().split()[2])
        found[name] = answer.read(size)
        answer.readline()
    return found


def in_each_commit(file: str, root: Path) -> dict[str, tuple[str, ...]]:
    """Return the blobs that a file has been, and the commits in which it was that, newest first."""
    known = commits(root)
    names = "".join(f"{commit}:./{file}\n" for commit in known)
    check = "--batch-check=%(objectname) %(objecttype)"
    answers = git.call("cat-file", check, root=root, stdin=names).splitlines()
    found: dict[str, list[str]] = {}
    for commit, answer in zip(known, answers, strict=True):
        if answer.endswith(b" blob"):
            found.setdefault(answer.split()[0].decode(), []).append(commit)
    return {blob: tuple(where) for blob, where in found.items()}


def ever(pattern: str, root: Path) -> set[tuple[str, str]]:
    """Return path and blob of every file like ``pattern`` that any commit brought."""
    how = (*EVERYWHERE, "--full-history", "-m", "--root", "--format=", "--raw", "--no-abbrev", "--no-renames")
    told = git.call("log", *how, "--relative", "-z", "--", pattern, root=root)
    fields = iter(each.strip("\n") for each in told.decode(errors="surrogateescape").split("\0"))
    found = set()
    for change in fields:
        if change.startswith(":"):
            blob, path = change.split()[3], next(fields)
            if blob.strip("0"):
                found.add((path, blob))
    return found


def at_other_ends(suffix: str, root: Path) -> set[tuple[str, str]]:
    """Return path and blob of files with a suffix at the ends of other branches, of tags and of stashes."""
    refs = git.ask("for-each-ref", "--no-merged=HEAD", "--format=%(refname)", root=root).split()
    found = set()
    for ref in refs:
        found |= at(ref, suffix, root)
    return found


def at(ref: str, suffix: str, root: Path) -> set[tuple[str, str]]:
    """Return path and blob of files with a suffix in one commit; none if there is no such commit."""
    found = set()
    for entry in git.ask("ls-tree", "-r", "-z", ref, root=root, timeout=120).split("\0"):
        described, _, path = entry.partition("\t")
        if path.endswith(suffix):
            found.add((path, described.split()[2]))
    return found


def was_tracked(path: str, root: Path) -> bool:
    """Whether any commit holds a file at, or below, a path, hidden ones such as ``.gitignore`` apart."""
    if Path(path).is_absolute() or path.startswith(".."):
        return False
    return any(not Path(file).name.startswith(".") for file, _ in ever(path, root))
