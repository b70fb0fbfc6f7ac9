"""Compressed files: unpacked as far as the limits allow, and searched as what they are then."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan


def _pyarrow(codec: str) -> Callable[[BinaryIO], Any]:
    def opened(stream: BinaryIO) -> Any:
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), codec)

    return opened


def _zlib(stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_Deflated(stream))


class _Deflated(io.RawIOBase):
    """What a zlib stream unpacks to; Git's loose objects are such streams."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._state = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._state.eof:
            packed = self._state.unconsumed_tail or self._stream.read(1 << 16)
            if not packed:
                return 0
            if data := self._state.decompress(packed, len(buffer)):
                buffer[: len(data)] = data
                return len(data)
        return 0


OPENED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"]\0\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _pyarrow("zstd"),
    b"\x04\x22\x4d\x18": _pyarrow("lz4"),
    b"x\x01": _zlib,
    b"x\x9c": _zlib,
    b"x\xda": _zlib,
}
SURE = frozenset({b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"})
"""Marks that begin nothing else: what cannot be unpacked is damaged, not something else."""


def matches(head: bytes) -> bool:
    """Whether it begins as a compressed file does."""
    return head.startswith(tuple(OPENED))


def read(content: Content, scan: Scan) -> bool:
    """Unpack and search; what is damaged, as far as it can be unpacked."""
    if scan.depth >= scan.limits.depth:
        scan.unread[Unread.DEEP] += 1
        return True
    mark = next(mark for mark in OPENED if content.head.startswith(mark))
    content.stream.seek(0)
    reader = _Careful(OPENED[mark], content.stream)
    with scan.unpacked(reader) as plain:  # type: ignore[arg-type]
        empty = not plain.read(1)
        if reader.failed and (mark in SURE or not empty):
            scan.unread[Unread.DAMAGED] += 1
        if empty:
            return mark in SURE
        scan.inside(plain)
    return True


class _Careful:
    """A reader that ends where the stream is damaged."""

    def __init__(self, opened: Callable[[BinaryIO], Any], stream: BinaryIO) -> None:
        self.failed = False
        self._file: Any = None
        with suppress(Exception):
            self._file = opened(stream)

    def read(self, length: int) -> bytes:
        """Read up to so many bytes."""
        try:
            return bytes(self._file.read(length))
        except Exception:  # each of the libraries has errors of its own
            self.failed = True
            return b""
