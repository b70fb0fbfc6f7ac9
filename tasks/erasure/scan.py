"""One content that is being searched: what was met in it, and how much of it may be unpacked."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tasks.erasure.found import Found, Unread
from tasks.erasure.sought import FILE, NAME, PICTURE, PIXELS, Sought

HEAD = 512
"""Bytes by which a format is known: a block of tar."""

IN_MEMORY = 1 << 26
"""Bytes of something unpacked that are held in memory; more goes to a temporary file that has no name."""

SEEN = 1 << 20
"""Contents that are remembered as searched."""

SHORTEST = 3
"""Characters of a name that tells anything; a number never does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an archive is unpacked, so that one that was made to fill the disk does not.

    Attributes
    ----------
    depth
        Of archives and encodings in each other: tar in gzip is two.
    unpacked
        Bytes in all.
    ratio
        Bytes for each byte of the content, once they are more than ``allowed``.
    allowed
        Bytes that may come of any content, however small.
    members
        Files in all archives of a content together.
    """

    depth: int = 6
    unpacked: int = 1 << 34
    ratio: int = 256
    allowed: int = 1 << 28
    members: int = 2_000_000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Content:
    """A stream that can be read anywhere, its length and first bytes; ``path`` if it is a file itself."""

    stream: BinaryIO
    size: int
    head: bytes
    path: Path | None = None

    @classmethod
    def of(cls, stream: BinaryIO, path: Path | None = None) -> Content:
        """Measure a stream."""
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        return cls(stream, size, stream.read(HEAD), path)

    def read(self, start: int = 0, length: int = -1) -> bytes:
        """Read a part, all of the rest if no length is given; less if the content ends earlier."""
        self.stream.seek(start)
        return self.stream.read(length)

    def blocks(self, length: int, start: int = 0) -> Iterator[bytes]:
        """Read from somewhere on to the end."""
        place = start
        while block := self.read(place, length):
            yield block
            place += len(block)

    def sha256(self) -> str:
        """SHA-256 of all of it, in hex."""
        self.stream.seek(0)
        return hashlib.file_digest(self.stream, "sha256").hexdigest()  # type: ignore[arg-type]


class Scan:
    """What a search of one content has met so far."""

    def __init__(self, sought: Sought, size: int, limits: Limits = LIMITS) -> None:
        self.sought = sought
        self.unread: Counter[Unread] = Counter()
        self.depth = 0
        self.limits = limits
        self.left = min(limits.unpacked, max(limits.allowed, limits.ratio * size))
        self.members = limits.members
        self._names: set[tuple[int, bytes]] = set()
        self._weak: set[tuple[int, bytes]] = set()
        self._pixels: set[tuple[int, bytes]] = set()
        self._pictures: set[tuple[int, bytes]] = set()
        self._files: set[tuple[int, bytes]] = set()
        self._weights: set[str] = set()
        self.by_name = sought.has(NAME)
        self.by_pixels = sought.has(PIXELS)
        self.by_picture = sought.has(PICTURE)
        self.by_image = self.by_pixels or self.by_picture
        self.whole = False

    # what the formats tell

    def names(self, candidates: Collection[bytes], *, weak: bool = False) -> None:
        """Look texts up that may be names, and paths that may end with one."""
        if not self.by_name:
            return
        for number, lens in enumerate(self.sought.lenses):
            for name in lens.met(NAME, candidates):
                unsure = weak or name.isdigit() or len(name) < SHORTEST
                (self._weak if unsure else self._names).add((number, name))
            for path, end in lens.met_by_end(candidates):
                before = path[: -len(end)]
                known = not weak and (before == b"./" or before in self.sought.roots)
                (self._names if known else self._weak).add((number, end))

    def image(self, pixels: Collection[bytes], pictures: Collection[bytes]) -> bool:
        """Look fingerprints and digests of pictures up, which are of one image or of many."""
        met = False
        for number, lens in enumerate(self.sought.lenses):
            for kind, values, known in ((PIXELS, pixels, self._pixels), (PICTURE, pictures, self._pictures)):
                found = lens.met(kind, values) if values else set()
                known |= {(number, each) for each in found}
                met = met or bool(found)
        return met

    def file(self, sha256: str) -> bool:
        """Look the SHA-256 of an encoded image up."""
        met = {
            (number, value)
            for number, lens in enumerate(self.sought.lenses)
            for value in lens.met(FILE, [sha256.encode()])
        }
        self._files |= met
        return bool(met)

    def model(self, digest: str) -> None:
        """Look the digest of a model's tensors up."""
        self._weights |= {digest} & self.sought.weights

    def text(self, text: bytes) -> None:
        """Search a text, or bytes in which there is text."""
        if text and (self.by_name or self.by_image or self.sought.has(FILE)):
            from tasks.erasure.formats.text import search_block

            search_block(text, self)

    def encoded(self, data: bytes) -> None:
        """Search a value that may be an encoded image, or any other content."""
        if data:
            self.inside(io.BytesIO(data))

    def inside(self, stream: BinaryIO) -> None:
        """Search what lies within the content, as a content of its own; the same one is searched once."""
        from tasks.erasure.formats import read

        if self.depth >= self.limits.depth:
            self.unread[Unread.DEEP] += 1
            return
        content = Content.of(stream)
        sha256 = content.sha256()
        digest = bytes.fromhex(sha256)
        if digest in self.sought.seen:
            return
        before = self._state()
        self.file(sha256)
        self.depth += 1
        try:
            read(content, self)
        finally:
            self.depth -= 1
        if before == self._state():
            self.remember(digest, Found())

    @contextmanager
    def unpacked(self, packed: BinaryIO) -> Iterator[BinaryIO]:
        """Unpack a stream as far as the limits allow."""
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
            try:
                while self.left > 0 and (block := packed.read(min(self.left, 1 << 20))):
                    file.write(block)
                    self.left -= len(block)
                if self.left <= 0 and packed.read(1):
                    self.unread[Unread.CUT] += 1
            finally:
                file.seek(0)
            yield file  # type: ignore[misc]

    def remember(self, digest: bytes, found: Found) -> None:
        """Keep in mind what was found under a content's digest."""
        if len(self.sought.seen) < SEEN:
            self.sought.seen[digest] = found

    def _state(self) -> tuple[int, ...]:
        met = (self._names, self._weak, self._pixels, self._pictures, self._files)
        return (*(len(each) for each in met), len(self._weights), self.unread.total())

    @property
    def found(self) -> Found:
        """What was met so far."""
        return Found(
            names=len(self._names),
            pixels=max(len(self._pixels), len(self._pictures)),  # two digests of one image
            files=len(self._files),
            weights=len(self._weights),
            whole=self.whole,
            weak=len(self._weak - self._names),
            unread={kind: count for kind, count in self.unread.items() if count},
        )
