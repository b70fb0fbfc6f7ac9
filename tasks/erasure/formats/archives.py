"""Zip and tar: every member's name and content, as far as the limits allow."""

from __future__ import annotations

import tarfile
import zipfile
from typing import TYPE_CHECKING

from tasks.erasure.formats import pickles
from tasks.erasure.formats.compressed import _Careful
from tasks.erasure.formats.text import search_names
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
TAR = b"ustar"
ENCRYPTED = 0x1


def matches(head: bytes) -> bool:
    """Whether it begins as an archive does."""
    return head.startswith(ZIP) or _is_tar(head)


def read(content: Content, scan: Scan) -> bool:
    """Search the members."""
    if scan.depth >= scan.limits.depth:
        scan.unread[Unread.DEEP] += 1
        return True
    content.stream.seek(0)
    try:
        if content.head.startswith(ZIP):
            _zip(content, scan)
        else:
            _tar(content, scan)
    except Exception:  # zipfile and tarfile raise nearly anything for damaged archives
        scan.unread[Unread.DAMAGED] += 1
        return False
    return True


def _is_tar(head: bytes) -> bool:
    if head[257:262] == TAR:
        return True
    if len(head) < tarfile.BLOCKSIZE or not head[0] or b"\0" not in head[:100]:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _zip(content: Content, scan: Scan) -> None:
    with zipfile.ZipFile(content.stream) as archive:
        scan.text(archive.comment)
        members = archive.infolist()
        search_names({each.filename.encode(errors="surrogateescape") for each in members}, scan)
        pickled = pickles.torch_archive(archive, scan)
        for member in members:
            if member.is_dir() or member.filename in pickled:
                continue
            if not _may_go_on(scan):
                return
            if member.flag_bits & ENCRYPTED:
                scan.unread[Unread.ENCRYPTED] += 1
                continue
            try:
                file = archive.open(member)
            except Exception:  # a method that zipfile does not know, or a damaged header
                scan.unread[Unread.UNKNOWN] += 1
                continue
            with file:
                reader = _Careful(lambda stream: stream, file)  # type: ignore[arg-type]
                with scan.unpacked(reader) as plain:  # type: ignore[arg-type]
                    scan.inside(plain)
                scan.unread[Unread.DAMAGED] += reader.failed


def _tar(content: Content, scan: Scan) -> None:
    with tarfile.open(fileobj=content.stream, mode="r:") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps all it has read
            search_names({member.name.encode(errors="surrogateescape")}, scan)
            if not member.isreg():
                continue
            if not _may_go_on(scan):
                return
            if member.sparse and member.size > scan.left:
                scan.unread[Unread.CUT] += 1
                continue
            if file := archive.extractfile(member):
                scan.left -= member.size if member.sparse else 0
                scan.inside(file)  # type: ignore[arg-type]


def _may_go_on(scan: Scan) -> bool:
    scan.members -= 1
    if scan.members < 0 or scan.left <= 0:
        scan.unread[Unread.CUT] += 1
        return False
    return True
