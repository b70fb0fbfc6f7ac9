"""Search of any content for samples of which only keyed digests are known.

DVC's objects have no names, so the content itself tells what it is:

- arrays of images (``.npy``): the fingerprint of every row, also of a file that was cut short;
- Parquet: every text is compared with the names, every binary cell with the encoded images;
- SQLite: every text and binary cell; and the file read as text, because freed pages keep their bytes
  (in which neighbouring cells run together, so a database should be compacted with ``VACUUM`` instead);
- weights (safetensors): the digest of the tensors, whatever the file is called;
- all else is read as text, damaged files too, and of binary files whatever is readable: cells of CSV,
  strings of JSON, lines, what stands between quotes, and what stands between blanks, brackets and commas;
  of a path also its ends, ``b/c`` of ``a/b/c``.

The SHA-256 of the whole content is compared with the encoded images, whatever it is. Of images and weights
(safetensors) the data is not read as text. Archives and compressed files (zip, gzip) are not opened: what
lies in them is reported by nobody. Neither is a name that is written in another encoding than UTF-8.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import mmap
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.requests.keys import reference
from tasks.requests.suppression import fingerprint

Content = bytes | mmap.mmap

BLOCK = 1 << 22
"""Bytes of text that are read at a time, and then on to the end of the line."""

LONGEST = 4096
"""Characters of a name: more than that, and no system takes it as a path."""

ROWS = 256
"""Rows of a table that are read at a time."""

ARRAY = b"\x93NUMPY"
CLOSED = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"PK\x03\x04", b"\x1f\x8b",
)  # fmt: skip
"""How images and archives begin: nothing but the digest of the whole tells anything."""

READABLE = re.compile(
    rb"(?:[\t\x20-\x7e]|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}){4,}"
)
"""Text in a binary file: four characters of UTF-8 or more."""

JSON_STRING = re.compile(r'"([^"\\\n]*(?:\\.[^"\\\n]*)*)"')
QUOTED = re.compile(r"""(?<=["'`])[^"'`\n]+(?=["'`])""")
SPANS = re.compile(r"""["'`,\n\r\t]|:\s|=|(?m:^)\s*-\s""")
TOKENS = re.compile(r"""[\s"'`,;:=|()\[\]{}<>]+""")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Keyed digests of a request's samples, each a :func:`tasks.requests.keys.reference`.

    Attributes
    ----------
    key
        The request's.
    names
        Of ids (kind ``id``) and source references (kind ``path``).
    pixels
        Of fingerprints (kind ``pixels``).
    files
        Of the SHA-256 of encoded image files (kind ``file``).
    flow_runs
        Ids of Prefect's flow runs that brought the request, or a duplicate of it: their parameters may name
        samples by what no text tells, such as a number.
    weights
        :func:`~tasks.engine.weights.tensor_digest` of models that had learned the samples.
    """

    key: bytes
    names: frozenset[str]
    pixels: frozenset[str]
    files: frozenset[str]
    flow_runs: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the wanted names, pixels, encoded images and models a content holds; false if none.

    ``whole`` says that the content as a whole is an encoded image that is wanted.
    """

    names: int = 0
    pixels: int = 0
    files: int = 0
    weights: int = 0
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.names or self.pixels or self.files or self.weights)

    @property
    def why(self) -> str:
        """What was found, in words."""
        if self.whole:
            return "is the image file of a sample"
        if self.weights:
            return "holds the weights of a model that had learned samples"
        counts = {"names": self.names, "pixels": self.pixels, "image files": self.files}
        return "holds " + ", ".join(f"{what} of samples: {count}" for what, count in counts.items() if count)


def find(content: Path | bytes, wanted: Iterable[Wanted]) -> Found:
    """Search a file, or bytes, for samples; a damaged one is searched as far as it can be read.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """
    search = _Search(list(wanted))
    data = _mapped(content) if isinstance(content, Path) else content
    search.file(hashlib.sha256(data).hexdigest())
    whole = bool(search.files)
    _read(data, content, search)
    return Found(len(search.names), len(search.pixels), len(search.files), len(search.weights), whole)


def named(path: str, wanted: Iterable[Wanted]) -> bool:
    """Whether a path, or an end of it, is the name of a sample."""
    search = _Search(list(wanted))
    search.name({path, *_ends(path)})
    return bool(search.names)


class _Search:
    """Digests that were met, among those that are wanted."""

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.wanted = wanted
        self.names: set[str] = set()
        self.pixels: set[str] = set()
        self.files: set[str] = set()
        self.weights: set[str] = set()
        self.by_name = any(each.names for each in wanted)
        self.by_pixels = any(each.pixels for each in wanted)

    def name(self, candidates: Iterable[str]) -> None:
        for each in self.wanted if self.by_name else ():
            for candidate in candidates:
                with contextlib.suppress(UnicodeEncodeError):  # half of a surrogate pair: no name
                    met = [reference(each.key, kind, candidate) for kind in ("id", "path")]
                    if not each.names.isdisjoint(met):
                        self.names.add(met[0])  # one name, even if it is both

    def image(self, value: str) -> None:
        for each in self.wanted:
            self.pixels |= {reference(each.key, "pixels", value)} & each.pixels

    def file(self, value: str) -> None:
        for each in self.wanted:
            self.files |= {reference(each.key, "file", value)} & each.files

    def tensors(self, data: Content) -> None:
        sought = frozenset[str]().union(*(each.weights for each in self.wanted))
        if not sought:
            return
        from safetensors import SafetensorError
        from safetensors.torch import load

        from tasks.engine.weights import tensor_digest

        with contextlib.suppress(SafetensorError):  # a damaged one can be used by nobody
            self.weights |= {tensor_digest(load(bytes(data)))} & sought

    def text(self, text: str) -> None:
        if self.by_name:
            self.name(set(_candidates(text)))


def _mapped(path: Path) -> Content:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return b""


def _read(data: Content, content: Path | bytes, search: _Search) -> None:
    if data[:6] == ARRAY:
        with contextlib.suppress(Exception):  # what a damaged header raises, numpy does not say
            _array(data, search)
    elif data[:4] == b"PAR1" and _parquet(data, search):
        pass
    elif data[8:10] == b'{"':  # safetensors: the length of the header, the header, the tensors
        _text(data[8 : 8 + int.from_bytes(data[:8], "little")], search)
        search.tensors(data)
    elif not data[:8].startswith(CLOSED):
        if data[:15] == b"SQLite format 3":
            _sqlite(content, search)
        _text(data, search)


def _array(data: Content, search: _Search) -> None:
    head = io.BytesIO(data[: 1 << 16])
    old = np.lib.format.read_magic(head) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    size = math.prod(shape[1:])
    if not search.by_pixels or dtype != np.uint8 or len(shape) != 4 or not size:
        return
    values = np.frombuffer(data, np.uint8, offset=head.tell())[: shape[0] * size]
    rows = len(values) // size
    images = values[: rows * size].reshape(rows, *shape[1:], order="F" if fortran else "C")
    for image in images:
        search.image(fingerprint(image))


def _parquet(data: Content, search: _Search) -> bool:
    """Whether the file could be read to its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))).iter_batches(ROWS):
            _cells(batch.to_pylist(), search)
    except (pa.ArrowException, OSError, ValueError, OverflowError):
        return False
    return True


def _sqlite(content: Path | bytes, search: _Search) -> None:
    try:
        with contextlib.closing(_opened(content)) as database:
            database.text_factory = lambda text: text.decode(errors="replace")
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                with contextlib.suppress(
                    sqlite3.Error, ValueError
                ):  # a damaged table, or one of a missing module
                    rows = database.execute('SELECT * FROM "{}"'.format(table.replace('"', '""')))  # noqa: S608
                    while some := rows.fetchmany(ROWS):
                        _cells(some, search)
    except (sqlite3.Error, ValueError):  # ValueError: its message names what is no text
        return


def _opened(content: Path | bytes) -> sqlite3.Connection:
    if isinstance(content, bytes):
        database = sqlite3.connect(":memory:")
        database.deserialize(content)
        return database
    live = content.with_name(f"{content.name}-wal").exists()
    mode = "mode=ro" if live else "immutable=1"  # immutable: nothing is written beside the file
    return sqlite3.connect(f"{content.absolute().as_uri()}?{mode}", uri=True)


def _cells(rows: Any, search: _Search) -> None:
    texts: list[str] = []
    for leaf in _leaves(rows):
        if isinstance(leaf, bytes):
            search.file(hashlib.sha256(leaf).hexdigest())
        elif isinstance(leaf, str):
            texts.append(leaf)
    search.name(set(texts))
    search.text("\n".join(texts))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _text(data: Content, search: _Search) -> None:
    start = 0
    while start < len(data) and search.by_name:
        end = data.find(b"\n", start + BLOCK) + 1 or len(data)
        block = data[start:end]
        if b"\0" in block:
            block = b"\n".join(READABLE.findall(block))
        search.text(block.decode("utf-8", errors="replace").removeprefix("\ufeff"))
        start = end


def _candidates(text: str) -> Iterator[str]:
    """Everything in a text that may be a name, some of it more than once."""
    yield from (line.strip() for line in text.split("\n"))
    for delimiter in ",;\t":
        if delimiter in text:
            with contextlib.suppress(csv.Error):
                for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
                    yield from row
    parts = {
        *map(str.strip, SPANS.split(text)),
        *QUOTED.findall(text),
        *TOKENS.split(text),
        *map(_unescaped, JSON_STRING.findall(text)),
    }
    for part in parts:
        if len(part) > LONGEST:
            continue
        yield part
        plain = part.rstrip(".!?")
        yield plain
        yield from _ends(plain)


def _unescaped(string: str) -> str:
    if "\\" not in string:
        return string
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string


def _ends(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.partition("/")[2]
        yield path
