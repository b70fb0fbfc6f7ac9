"""Tables of samples and class names as files hold them, for readers that need no arrays."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import read_json

SPLIT = Path("data/split")
"""Where the files of a split lie."""

COPIES = "copies.csv"
COPIES_HEAD = "sample_id,same,alike"
"""Which samples of a split show the same picture, see :mod:`tasks.samples.copies`."""


TAKEN = "test/taken"
"""In ``metrics.json``: how many test samples were taken, where the source has no test part. Such a sample may
have been a training sample once; one of the source's own test part never was."""

SUBJECTS = "subjects.csv"
SUBJECTS_HEAD = "sample_id,subject:"
"""Whose the samples of a split are, by keyed digests; behind the colon stands what tells the key."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A CSV file ``sample_id,source,label,<column>``, as it was read.

    Attributes
    ----------
    sample_ids, sources
        N unique ids and N references into the source.
    labels
        N class numbers.
    groups
        N values of the last column.
    """

    sample_ids: tuple[str, ...]
    sources: tuple[str, ...]
    labels: list[int]
    groups: list[str]


def header(column: str) -> tuple[str, ...]:
    """Return the first line of a table whose last column is ``column``."""
    return ("sample_id", "source", "label", column)


def read_table(path: Path, column: str, groups: tuple[str, ...]) -> Table:
    """Read a table; its last column is called ``column`` and holds one of ``groups``.

    Raises
    ------
    ExpungeError
        If it is missing or damaged; the message names the line.
    """
    ids: dict[str, None] = {}
    sources: list[str] = []
    labels: list[int] = []
    membership: list[str] = []
    known = {group: group for group in groups}  # one text each, however many rows
    for line, (sample_id, source, label, group) in _rows(path, header(column)):
        # int() would also take "1_0", " 1" and digits of other scripts.
        if not (label.isascii() and label.isdigit() and len(label) < 10):
            raise ExpungeError(f"{path}, line {line}: label {label!r} is no class number; {RESTORE}")
        if group not in known:
            raise ExpungeError(
                f"{path}, line {line}: {column} {group!r}, known: {', '.join(groups)}; {RESTORE}"
            )
        if sample_id in ids:
            raise ExpungeError(f"{path}, line {line}: sample id {sample_id!r} for the second time; {RESTORE}")
        ids[sample_id] = None
        sources.append(source)
        labels.append(int(label))
        membership.append(known[group])
    if not ids:
        raise ExpungeError(f"{path} has no rows; {RESTORE}")
    return Table(tuple(ids), tuple(sources), labels, membership)


def rows_of(path: Path) -> tuple[str, Iterator[list[str]]]:
    """Return a table's header as it stands, and its rows, all of as many cells.

    Raises
    ------
    ExpungeError
        If it is missing or damaged; the message names the line.
    """
    head, rows = _parsed(path)
    return ",".join(head), (row for _, row in rows)


def _rows(path: Path, expected: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    head, rows = _parsed(path)
    if head != list(expected):
        raise ExpungeError(f"{path}, line 1: the header is not {','.join(expected)}; {RESTORE}")
    return rows


def _parsed(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; run the stage that writes it: dvc repro split") from None
    except UnicodeDecodeError as error:
        raise ExpungeError(f"{path} is not UTF-8 text: byte {error.start}; {RESTORE}") from None
    lines = _lines(path, text)
    _, head = next(lines, (0, []))
    return head, lines


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    width = None
    try:
        for row in reader:
            width = len(row) if width is None else width
            if len(row) != width:
                found = f"{len(row)} columns instead of {width}"
                raise ExpungeError(f"{path}, line {reader.line_num}: {found}; {RESTORE}")
            yield reader.line_num, row
    except csv.Error as error:
        raise ExpungeError(f"{path}, line {reader.line_num}: {error}; {RESTORE}") from None


def read_copies(path: Path) -> dict[str, tuple[int, int]]:
    """Read which samples show the same picture: the number of its group of equals and of those alike.

    Raises
    ------
    ExpungeError
        If the file is missing or damaged; the message names the line.
    """
    found: dict[str, tuple[int, int]] = {}
    for line, (sample_id, *numbers) in _rows(path, ("sample_id", "same", "alike")):
        if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
            raise ExpungeError(f"{path}, line {line}: {numbers} are no numbers of groups; {RESTORE}")
        same, alike = map(int, numbers)
        found[sample_id] = same, alike
    return found


def read_classes(path: Path, highest: int, table_path: Path) -> tuple[str, ...]:
    """Read the names of the classes; ``highest`` is the largest label in the table at ``table_path``.

    Raises
    ------
    ExpungeError
        If the file is missing or damaged, or does not fit the table.
    """
    classes = read_json(path)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ExpungeError(f"{path} is not a list of class names; {RESTORE}")
    if highest >= len(classes):
        raise ExpungeError(f"{table_path} has label {highest}, {path} only {len(classes)} classes; {RESTORE}")
    return tuple(classes)
