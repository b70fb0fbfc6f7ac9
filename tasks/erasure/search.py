"""Search of any content for samples.

DVC's objects have no names, so the content itself tells what it is; :mod:`tasks.erasure.formats` lists what
can be read, and how. The SHA-256 of the whole content is compared with the encoded images, whatever it is.
What cannot be opened, or was cut off, is counted by kind in :attr:`Found.unread`, so that a checklist can
name it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from tasks.erasure.formats import read
from tasks.erasure.formats.text import search_names
from tasks.erasure.found import Found, Unread
from tasks.erasure.scan import LIMITS, Content, Limits, Scan
from tasks.erasure.sought import Sought, Wanted, sought_of

Asked = Sought | Sequence[Wanted]
"""What is looked for, in either form."""

__all__ = ["Asked", "Found", "Limits", "Sought", "Unread", "Wanted", "find", "named", "sought_of"]


def find(
    content: Path | bytes | BinaryIO, sought: Sought | Iterable[Wanted], limits: Limits = LIMITS
) -> Found:
    """Search a file, bytes, or a stream that can be read anywhere; a damaged one as far as it can be read.

    Links, pipes and devices are never opened, and a file that cannot be read is not searched: both are
    counted as unread. A content that was searched for the same ``sought`` before is not searched again.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    sought = sought_of(sought)
    if isinstance(content, bytes):
        return _search(Content.of(io.BytesIO(content)), sought, limits)
    if not isinstance(content, Path):
        return _search(Content.of(content), sought, limits)
    try:
        with _opened(content) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Found(unread={Unread.SPECIAL: 1})
            before = _version(file)
            found = _search(Content.of(file, content), sought, limits)
            if before == _version(file):
                return found
    except FileNotFoundError:
        raise
    except OSError as error:
        kind = (
            Unread.SPECIAL if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) else Unread.UNREADABLE
        )
        return Found(unread={kind: 1})
    return _noted(found, Unread.CHANGED)


def named(path: str, sought: Sought | Iterable[Wanted]) -> Found:
    """Search a path, which may be the name of a sample, or end with one, which is weak evidence.

    Below one of :attr:`Sought.roots` the rest of the path is the name, not an end of it.
    """
    scan = Scan(sought_of(sought), 0)
    search_names({path.encode(errors="surrogateescape")}, scan)
    return scan.found


def _opened(path: Path) -> BinaryIO:
    """Open a file without following a link or waiting for somebody to write into a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.fdopen(os.open(path, flags), "rb")


def _version(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _search(content: Content, sought: Sought, limits: Limits) -> Found:
    scan = Scan(sought, content.size, limits)
    sha256 = content.sha256()
    alone = content.path is None or not content.path.with_name(f"{content.path.name}-wal").exists()
    known = sought.seen.get(b"whole" + bytes.fromhex(sha256)) if alone else None
    if isinstance(known, Found):
        return known
    scan.whole = scan.file(sha256)
    read(content, scan)
    if alone:
        scan.remember(b"whole" + bytes.fromhex(sha256), scan.found)
    return scan.found


def _noted(found: Found, kind: Unread) -> Found:
    return Found(
        found.names,
        found.pixels,
        found.files,
        found.weights,
        found.whole,
        found.weak,
        {**found.unread, kind: 1},
    )
