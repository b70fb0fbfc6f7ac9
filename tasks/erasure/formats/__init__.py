"""Formats in which copies of samples can lie: how each is known by its first bytes, and how it is searched.

======================  ==============================================================================
``npy``                 NumPy's arrays: of images in any layout, of texts, of pickled objects
``columns``             Parquet, Arrow, Feather, ORC: every column, lists and structs too
``sqlite``              every text and binary cell, and the freed pages
``safetensors``         the header, the tensors' digest, tensors that are images
``pickles``             pickles, followed but never executed, and what PyTorch saves
``archives``            zip (also ``.npz`` and ``.pt``) and tar: every member
``compressed``          gzip, bzip2, xz, zlib, zstd, LZ4
``pictures``            whatever Pillow decodes
``text``                all else: texts in UTF-8 and UTF-16, and what is readable in a binary file
``spellings``           the ways in which a text spells a name
``base64_runs``         Base64 in a text
``arrays``              images in an array: layouts, types, fingerprints
======================  ==============================================================================

To add a format: one file with ``matches(head)`` and ``read(content, scan)``, and its line in :data:`FORMATS`.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from tasks.erasure.formats import (
    archives,
    columns,
    compressed,
    npy,
    pickles,
    pictures,
    safetensors,
    sqlite,
    text,
)
from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan


class Format(Protocol):
    """A module that reads one format."""

    def matches(self, head: bytes) -> bool:
        """Whether a content that begins like this may be of the format."""

    def read(self, content: Content, scan: Scan) -> bool:
        """Search a content; false if it has to be read as text, too."""


def _format(module: ModuleType) -> Format:
    return cast("Format", module)


FORMATS = tuple(
    map(_format, (npy, columns, sqlite, safetensors, archives, compressed, pictures, pickles)),
)
"""In the order in which they are tried: those with the longest marks first."""

UNOPENED = (
    b"\x89HDF\r\n\x1a\n", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"%PDF-", b"Obj\x01", b"PACK\0\0\0",
    b"FEA1", b"SEQ\x06", b"!<arch>\n", b"MSCF\0\0\0\0",
    b"\0\0\0\x20ftyp", b"\0\0\0\x18ftyp", b"\0\0\0\x1cftyp",
)  # fmt: skip
"""How files begin that hold more than can be read as text: HDF5, 7z, RAR, PDF, Avro, films, …"""


COLLECTIONS = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"CMMM"
"""How files begin in which Windows keeps thumbnails; old files of Office are like ``Thumbs.db``."""


def read(content: Content, scan: Scan) -> None:
    """Search a content in its format, and as text where that is not all."""
    if not content.size:
        return
    for each in FORMATS:
        if each.matches(content.head) and each.read(content, scan):
            return
    if content.head.startswith(UNOPENED):
        scan.unread[Unread.UNKNOWN] += 1
    if content.head.startswith(COLLECTIONS):
        scan.unread[Unread.THUMBNAILS] += 1
    text.read(content, scan)
