"""Whose each sample is, as tables say it: one reference or several, in one row or in several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.datasets._reading.csv_text import as_csv, rows_of, separator_of, spelled
from tasks.samples.check import is_plain
from tasks.samples.unicode_forms import composed

FILE = "subjects.csv"
"""Table beside the images of an image folder, unless ``split.subject`` names another."""

HEAD = ["path", "subject"]
BETWEEN = ";"
"""Between the references of several people in one cell."""

LONGEST = 256


def references_in(cell: object, where: str) -> tuple[str, ...]:
    """Return the references in a cell: text, with ``;`` between several, a list, a number, or nothing.

    Raises
    ------
    ExpungeError
        If one is too long or holds control characters; ``where`` names the cell.
    """
    if cell is None:
        return ()
    parts = list(cell) if isinstance(cell, list | tuple) else str(cell).split(BETWEEN)
    found = tuple(dict.fromkeys(text for part in parts if (text := str(part or "").strip())))
    for text in found:
        if len(text) > LONGEST or not is_plain(text):
            raise ExpungeError(
                f"{where}: a subject is one line of at most {LONGEST} characters, without control characters"
            )
    return found


def read_subjects(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a table of paths and subjects.

    Returns
    -------
    dict[str, tuple[str, ...]]
        References by composed path; a path may have several rows.

    Raises
    ------
    ExpungeError
        If the table cannot be read; the message names the line.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line, (name, cell) in _rows(path):
        key = composed(name)
        found[key] = tuple(dict.fromkeys([*found.get(key, ()), *references_in(cell, f"{path}, line {line}")]))
    return found


def without(path: Path, names: Collection[str]) -> bool:
    """Take the rows of some paths out of a table of subjects; return whether it had any."""
    leaving = set(map(composed, names))
    rows = [row for _, row in _rows(path)]
    kept = [row for row in rows if composed(row[0]) not in leaving]
    if len(kept) == len(rows):
        return False
    write_text(path, as_csv([HEAD, *kept]))
    return True


def of_samples(
    names: Sequence[str], subjects: Mapping[str, tuple[str, ...]]
) -> tuple[tuple[tuple[str, ...], ...], int]:
    """Return each sample's references, and how many paths of the table are no sample."""
    known = {composed(name) for name in names}
    return tuple(subjects.get(composed(name), ()) for name in names), len(subjects.keys() - known)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    rows = rows_of(path, separator_of(path, HEAD))
    try:
        _, head = next(rows)
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; split.subject names it") from None
    names = [spelled(name) for name in head]
    if sorted(names) != HEAD:
        raise ExpungeError(
            f"{path}, line 1: the header is {','.join(head) or 'missing'}; {','.join(HEAD)} is right"
        )
    at = [names.index(column) for column in HEAD]
    return [(line, [row[place] for place in at]) for line, row in rows]
