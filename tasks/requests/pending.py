"""Requests that were received while it could not be told what they name: that waits here to be resolved.

The ledger names no sample, so the submission itself is kept until it is resolved, in a folder that Git
ignores and that the purge searches; then it is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks.core.files import write_whole

PENDING = Path("data/requests/pending")


def keep(request: str, name: str, content: bytes) -> None:
    """Keep a submission; it is on the disk when this returns."""
    with write_whole(PENDING / f"{request}{Path(name).suffix.lower()}", private=True) as file:
        file.write(content)


def waiting() -> Iterator[tuple[str, Path]]:
    """Yield the ids of the requests that wait, and their submissions."""
    for path in sorted(PENDING.glob("[0-9]*")) if PENDING.is_dir() else ():
        yield path.stem, path


def is_kept(request: str) -> bool:
    """Whether the submission of a request still waits here."""
    return any(name == request for name, _ in waiting())


def drop(request: str) -> None:
    """Delete what a request named, if it still waits."""
    for name, path in waiting():
        if name == request:
            path.unlink(missing_ok=True)
