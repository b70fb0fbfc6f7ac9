"""The inbox: a folder into which other systems drop requests.

A file is claimed first: a rename gives it the request's id, atomically. From then on a kill at any point
is made good by the next call, for the desk treats an id once. What was taken is deleted; what was
rejected is moved aside, with a text that says why. What can neither be taken nor rejected, such as a file
that cannot be read, stays where it is, and every call says so until somebody has looked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer, write_text
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Receipt, new_id
from tasks.requests.keys import REQUEST_ID
from tasks.requests.parsing import LARGEST
from tasks.requests.states import Status

INBOX = Path("data/requests/inbox")
CLAIMED = Path("data/requests/claimed")
REJECTED = Path("data/requests/rejected")

SETTLED = 2.0
"""Seconds for which a file must have been left alone: it may still be being written."""

LONGEST = 200
"""Bytes of a name that are kept: the id before it and what a text beside it adds must fit in 255, too."""

T = TypeVar("T")

_CLAIMED_NAME = re.compile(rf"({REQUEST_ID.pattern})\.(.+)", re.DOTALL)


def waits() -> bool:
    """Whether there is anything to take."""
    return any(
        not path.name.startswith(".")
        for folder in (INBOX, CLAIMED)
        if folder.is_dir()
        for path in folder.iterdir()
    )


def take(
    desk: Desk, catalogue: Catalogue | None, *, settled: float = SETTLED
) -> Iterator[tuple[str, Receipt | str]]:
    """Submit the files in the inbox, oldest claim first.

    Hidden files, folders and files that changed a moment ago are left where they are. No file stops
    another.

    Yields
    ------
    tuple[str, Receipt | str]
        Each file's name, as it can be shown, and its receipt; or the problem, without anything that the
        file holds, where neither the one nor the other could be given for it.

    Raises
    ------
    ExpungeError
        If another process is taking them, or the ledger cannot be reached.
    """
    INBOX.mkdir(parents=True, exist_ok=True)
    CLAIMED.mkdir(parents=True, exist_ok=True)
    with only_writer(INBOX):
        desk.foresee(catalogue, _to_come(settled))
        for path in _visible(CLAIMED):
            match = _CLAIMED_NAME.fullmatch(path.name)
            name = match[2] if match else path.name
            yield _plain(name), _outcome(desk, partial(_submit, desk, catalogue, path))
        for path in _visible(INBOX):
            if path.is_symlink() or path.is_file():
                outcome = _outcome(desk, partial(_claim_and_submit, desk, catalogue, path, settled))
                if outcome is not None:
                    yield _plain(path.name), outcome


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _to_come(settled: float) -> Iterator[tuple[bytes, str]]:
    """Yield content and name of the files that will be submitted, as far as they can be read now."""
    for path in (*_visible(CLAIMED), *_visible(INBOX)):
        with suppress(OSError):
            if path.is_file() and time.time() - path.lstat().st_mtime >= settled:
                yield _content(path), path.name


def _outcome(desk: Desk, work: Callable[[], T]) -> T | str:
    """Do what there is to do for one file; return the problem where that fails, whatever it is."""
    try:
        return work()
    except OSError as error:
        return f"cannot be taken: {error.strerror or type(error).__name__}"
    except ExpungeError as error:
        desk.ledger.head()  # if it is the ledger that cannot be reached, there is no point in going on
        return f"cannot be taken: {error}"
    except Exception as error:  # its text may hold what the file holds
        return f"cannot be taken: {type(error).__name__}, a defect"


def _claim_and_submit(
    desk: Desk, catalogue: Catalogue | None, path: Path, settled: float
) -> Receipt | str | None:
    if time.time() - path.lstat().st_mtime < settled:
        return None
    name = f"{new_id(desk.clock())}.{_shortened(_plain(path.name))}"
    return _submit(desk, catalogue, path.rename(CLAIMED / name))


def _submit(desk: Desk, catalogue: Catalogue | None, path: Path) -> Receipt | str:
    match = _CLAIMED_NAME.fullmatch(path.name)
    if match is None:
        return f"lies in {CLAIMED}, but its name does not begin with a request's id; move it to {INBOX}"
    if not (path.is_symlink() or path.is_file()):
        return f"lies in {CLAIMED}, but is no file; take it away"
    request, name = match[1], _plain(match[2])
    receipt = desk.submit(_content(path), name, catalogue, channel="inbox", request=request)
    if receipt.request.state.status is Status.REJECTED:
        REJECTED.mkdir(parents=True, exist_ok=True)
        lines = [f"{name} was rejected as request {request}:", *map(str, receipt.problems), ""]
        write_text(REJECTED / f"{path.name}.txt", "\n".join(lines))
        path.rename(REJECTED / path.name)
    else:
        path.unlink()
    return receipt


def _content(path: Path) -> bytes:
    """Bytes of a file, one more than is allowed at most; none of what a link points to."""
    if path.is_symlink():
        return b""
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def _plain(name: str) -> str:
    """Return a file's name as it can be shown and written: bytes that are no text, and controls, escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )


def _shortened(name: str) -> str:
    """Return a name of :data:`LONGEST` bytes at most, which ends as before."""
    if len(name.encode()) <= LONGEST:
        return name
    suffix = Path(name).suffix[-20:]
    return name.encode()[: LONGEST - len(suffix.encode())].decode(errors="ignore") + suffix
