"""Temporary folders below ``.expunge``: what is in them is never out of a search's reach."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.files import STATE

FOLDER = STATE / "tmp"


@contextmanager
def temporary_folder(root: Path = Path()) -> Iterator[Path]:
    """Hold an empty folder of the checkout at ``root`` that is gone afterwards.

    A process that is killed leaves it, without the lock beside it: :func:`clear` deletes such ones.
    """
    path = root / FOLDER / secrets.token_hex(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    with FileLock(lock):
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock.unlink(missing_ok=True)


def clear(root: Path = Path()) -> int:
    """Delete the folders that processes which are gone have left; return how many there were."""
    count = 0
    names = {path.stem for path in (root / FOLDER).glob("*")}
    for path in (root / FOLDER / name for name in sorted(names)):
        lock = path.with_suffix(".lock")
        try:
            with FileLock(lock, timeout=0):
                count += path.exists()
                shutil.rmtree(path, ignore_errors=True)
                lock.unlink(missing_ok=True)
        except Timeout:  # it is in use
            continue
    return count
