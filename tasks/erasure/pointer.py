"""What DVC has on record of a source, and how it is brought up to date once originals have left.

A ``.dvc`` file at the source, above it or below it names its content by MD5, and so does ``dvc.lock`` if a
stage makes it. Git tracks both. After a purge they must name what is there now: else a clone is told to
fetch objects that the purge has deleted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.dvc_failure import who_is_busy
from tasks.core.errors import BusyError, ExpungeError
from tasks.erasure.stores.dvc import opened


@dataclass(frozen=True, slots=True, order=True)
class Pointer:
    """A record that names a source, or a part of it, by its content.

    Attributes
    ----------
    file
        The file that Git tracks, relative to the repository: ``data/images.dvc`` or ``dvc.lock``.
    target
        What DVC calls it: the ``.dvc`` file itself, or ``dvc.yaml:<stage>``.
    path
        What it names, relative to the repository.
    comes_back
        In one sentence why DVC would undo a purge of it; empty if it would not.
    """

    file: str
    target: str
    path: str
    comes_back: str = ""


def pointers(root: Path, split_path: str | Path) -> list[Pointer]:
    """Return the records that name the source; none if DVC does not track it.

    Parameters
    ----------
    root
        The repository's.
    split_path
        As ``split.path``: a file or a folder, with or without a slash at its end, itself tracked, or below or
        above what is tracked.

    Raises
    ------
    ExpungeError
        If DVC cannot read ``dvc.yaml`` or what may be the source's own ``.dvc`` file. Another that is
        damaged is passed over.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100 - links are not followed: DVC names paths as they stand
    path = os.path.normpath(root / split_path)

    def damaged(file: str, error: Exception) -> None:
        tracked = os.path.abspath(file.removesuffix(".dvc"))  # noqa: PTH100 - as above
        if not file.endswith(".dvc") or os.path.commonpath([tracked, path]) in (tracked, path):
            raise error

    with opened(root) as repo:
        from dvc.repo.index import Index

        found = set()
        for out in Index.from_repo(repo, onerror=damaged).outs:
            if out.protocol != "local":
                continue
            above = out.fs.isin_or_eq(path, out.fs_path)
            # of what lies below, only data: a folder that has the stages' outputs in it is none's source
            if above or (out.stage.is_data_source and out.fs.isin(out.fs_path, path)):
                found.add(_pointer(root, out))
    return sorted(found)


def why_it_comes_back(root: Path, split_path: str | Path) -> str | None:
    """Return in one sentence why DVC would bring purged originals back; None if it would not.

    It is asked before a request is carried out.

    Raises
    ------
    ExpungeError
        If DVC cannot read its files.
    """
    return next((each.comes_back for each in pointers(root, split_path) if each.comes_back), None)


def bring_up_to_date(root: Path, split_path: str | Path) -> list[str]:
    """Make DVC's records of the source name what is there now; the source stays as it is.

    It can be called again: after a kill between this and the commit it returns the same.

    Parameters
    ----------
    root, split_path
        As for :func:`pointers`.

    Returns
    -------
    list[str]
        The files that hold the records, relative to the repository, to be committed; none if DVC does
        not track the source.

    Raises
    ------
    BusyError
        If another process of DVC is at work.
    ExpungeError
        If DVC fails, with what it says.
    """
    found = pointers(root, split_path)
    for target in sorted({each.target for each in found}):
        done = subprocess.run(  # not --quiet: that hides errors, too
            [sys.executable, "-m", "dvc", "commit", "--force", target],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            line = next((line for line in said if line.startswith("ERROR")), said[0])
            if busy := who_is_busy(line):
                raise BusyError(f"dvc commit {target} waits: {busy}")
            raise ExpungeError(f"dvc commit {target} failed: {line.removeprefix('ERROR: ')}")
    return sorted({each.file for each in found})


def _pointer(root: Path, out: Any) -> Pointer:
    stage, path = out.stage, os.path.relpath(out.fs_path, root)
    file = os.path.relpath(stage.path, root)
    if not file.endswith(".dvc"):
        comes_back = (
            ""
            if out.persist
            else f"{path} is made by stage {stage.name}, which would make it again with what was erased; "
            f"say persist: true of it in {file}, and let the stage leave alone what is there"
        )
        return Pointer(str(Path(file).with_suffix(".lock")), f"{file}:{stage.name}", path, comes_back)
    comes_back = (
        f"{path} is imported ({file}), and dvc update would bring back what was erased; make it your own: "
        f"dvc remove {file} && dvc add {path}"
        if stage.deps
        else ""
    )
    return Pointer(file, file, path, comes_back)
