"""The inbox: a folder into which other systems drop requests.

A file is claimed first: a rename gives it the request's id, atomically. From then on a kill at any point
is made good by the next call, for the desk treats an id once. What was taken is deleted; what was
rejected is moved aside, with a text that says why.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tasks.core.files import only_writer, write_text
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Receipt, new_id
from tasks.requests.parsing import LARGEST
from tasks.requests.states import Status

INBOX = Path("data/requests/inbox")
CLAIMED = Path("data/requests/claimed")
REJECTED = Path("data/requests/rejected")

SETTLED = 2.0
"""Seconds for which a file must have been left alone: it may still be being written."""


def waits() -> bool:
    """Whether there is anything to take."""
    return any(folder.is_dir() and any(folder.iterdir()) for folder in (INBOX, CLAIMED))


def take(desk: Desk, catalogue: Catalogue, *, settled: float = SETTLED) -> Iterator[tuple[str, Receipt]]:
    """Submit the files in the inbox, oldest claim first; yield each file's name and receipt.

    Hidden files, folders and files that changed a moment ago are left where they are.

    Raises
    ------
    ExpungeError
        If another process is taking them.
    """
    INBOX.mkdir(parents=True, exist_ok=True)
    CLAIMED.mkdir(parents=True, exist_ok=True)
    with only_writer(INBOX):
        for path in sorted(CLAIMED.iterdir()):
            yield _submit(desk, catalogue, path)
        for path in sorted(INBOX.iterdir()):
            if path.name.startswith(".") or not (path.is_symlink() or path.is_file()):
                continue
            if time.time() - path.lstat().st_mtime < settled:
                continue
            yield _submit(desk, catalogue, path.rename(CLAIMED / f"{new_id(desk.clock())}.{path.name}"))


def _submit(desk: Desk, catalogue: Catalogue, path: Path) -> tuple[str, Receipt]:
    request, _, name = path.name.partition(".")
    receipt = desk.submit(_content(path), name, catalogue, channel="inbox", request=request)
    if receipt.request.state.status is Status.REJECTED:
        REJECTED.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} was rejected as request {request}:", *map(str, receipt.problems), ""]
        write_text(REJECTED / f"{path.name}.txt", "\n".join(lines))
        path.rename(REJECTED / path.name)
    else:
        path.unlink()
    return name, receipt


def _content(path: Path) -> bytes:
    """Bytes of a file, one more than is allowed at most; none of what a link points to."""
    if path.is_symlink():
        return b""
    with path.open("rb") as file:
        return file.read(LARGEST + 1)
