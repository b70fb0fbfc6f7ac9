"""CSV tables of figures, written whole and read with their columns checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_text


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text by name, in the file's order."""

    path: Path
    columns: dict[str, list[str]]

    def numbers(self, column: str) -> NDArray[np.float64]:
        """Return a column as numbers.

        Raises
        ------
        ExpungeError
            If a cell is no finite number.
        """
        try:
            found = np.array(self.columns[column], dtype=np.float64)
        except ValueError as error:
            raise ExpungeError(f"{self.path}, column {column}: {error}; {RESTORE}") from None
        if not np.isfinite(found).all():
            raise ExpungeError(f"{self.path}, column {column} holds NaN or infinity; {RESTORE}")
        return found


def read_table(path: Path, columns: tuple[str, ...]) -> Table:
    """Read a table that has at least ``columns``; it may have no rows.

    Raises
    ------
    ExpungeError
        If the file is missing, is no CSV of UTF-8 text, or lacks a column.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True))
    except FileNotFoundError:
        raise ExpungeError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExpungeError(f"{path} is damaged ({error}); {RESTORE}") from None
    header = rows[0] if rows else []
    missing = [column for column in columns if column not in header]
    if missing:
        raise ExpungeError(f"{path} has no column {', '.join(missing)}; {RESTORE}")
    if any(len(row) != len(header) for row in rows):
        raise ExpungeError(f"{path} has rows of unequal length; {RESTORE}")
    return Table(path, {column: [row[place] for row in rows[1:]] for place, column in enumerate(header)})


def write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    """Write a table whole, floats with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
