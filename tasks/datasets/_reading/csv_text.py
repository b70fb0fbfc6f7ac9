"""Rows of CSV and TSV files that people write, and the text of such files."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.core.errors import ExpungeError

SEPARATORS = (",", ";", "\t")
"""Between cells, as spreadsheets of different countries write them."""


def spelled(name: str) -> str:
    """Return the name of a column as it is compared: without blanks around it, in small letters."""
    return name.strip().lower()


def separator_of(path: Path, columns: Collection[str]) -> str:
    """Return what stands between the cells of a CSV file: that by which its header has one of ``columns``.

    It is a comma if nothing is, or the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
    except (OSError, UnicodeDecodeError):
        return SEPARATORS[0]
    for separator in SEPARATORS:
        with suppress(csv.Error):
            cells = next(csv.reader([head], delimiter=separator), [])
            if not {spelled(cell) for cell in cells}.isdisjoint(columns):
                return separator
    return SEPARATORS[0]


def rows_of(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row ends, and its cells: first the header; empty rows are passed over.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ExpungeError
        If it is not UTF-8 text or no CSV, or a row has not as many cells as the header; the message names
        the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExpungeError(f"{path} is not UTF-8 text: byte {error.start}") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        head = next(reader, [])
        yield 1, head
        for row in filter(None, reader):
            if len(row) != len(head):
                raise ExpungeError(
                    f"{path}, line {reader.line_num}: {len(row)} cells; the header has {len(head)}"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ExpungeError(f"{path}, line {reader.line_num}: {error}") from None


def as_csv(rows: Iterable[Sequence[str]], delimiter: str = ",") -> str:
    """Return rows as the text of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()
