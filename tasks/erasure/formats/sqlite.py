"""SQLite: every text and binary cell; then the file is read as text, for freed pages keep their bytes.

In these neighbouring cells run together, so a database should be compacted with ``VACUUM``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tasks.erasure.found import Unread

if TYPE_CHECKING:
    from tasks.erasure.scan import Content, Scan

ROWS = 256
"""Rows of a table that are read at a time."""

LARGEST = 1 << 30
"""Bytes of a database within an archive."""


def matches(head: bytes) -> bool:
    """Whether it begins as a database of SQLite does."""
    return head.startswith(b"SQLite format 3")


def read(content: Content, scan: Scan) -> bool:
    """Search the cells; always false, so that freed pages are read, too."""
    if content.path is None and content.size > LARGEST:
        scan.unread[Unread.LARGE] += 1
        return False
    try:
        with contextlib.closing(_opened(content)) as database:
            database.text_factory = bytes
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                _table(database, table, scan)
    except (sqlite3.Error, ValueError):  # ValueError: its message names what is no text
        scan.unread[Unread.DAMAGED] += 1
    return False


def _table(database: sqlite3.Connection, table: bytes, scan: Scan) -> None:
    name = table.decode(errors="replace").replace('"', '""')
    database.text_factory = _text
    try:
        rows = database.execute(f'SELECT * FROM "{name}"')  # noqa: S608
        while some := rows.fetchmany(ROWS):
            search_cells((cell for row in some for cell in row), scan)
    except (sqlite3.Error, ValueError) as error:  # a damaged table, or one of a module that is not there
        if "no such module" not in str(error):
            scan.unread[Unread.DAMAGED] += 1


def _text(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def search_cells(cells: Iterable[Any], scan: Scan) -> None:
    """Search texts and binary values."""
    texts = set()
    for cell in cells:
        if isinstance(cell, str):
            texts.add(cell.encode(errors="surrogatepass" if cell.isascii() else "surrogateescape"))
        elif isinstance(cell, bytes | bytearray | memoryview):
            scan.encoded(bytes(cell))
    if texts:
        scan.names(texts)
        scan.text(b"\n".join(texts))


def _opened(content: Content) -> sqlite3.Connection:
    if content.path is None:
        database = sqlite3.connect(":memory:")
        database.deserialize(content.read())
        return database
    live = content.path.with_name(f"{content.path.name}-wal").exists()
    mode = "mode=ro" if live else "immutable=1"  # immutable: nothing is written beside the file
    return sqlite3.connect(f"{content.path.absolute().as_uri()}?{mode}", uri=True)
