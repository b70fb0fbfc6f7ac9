"""The text file that names the samples to be forgotten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.samples.image_set import ImageSet

log = logging.getLogger(__name__)

SHOWN = 5
"""How many bad lines a message names."""
LONGEST = 100
"""How many characters of a bad line a message shows."""

HELD_OUT = "#held-out "
"""Begins a line that names a sample which is to be neither trained on nor validated with: it leaves, and no
model has learned it, so there is nothing of it to forget."""


def named_rows(
    path: Path, image_set: ImageSet, where: str, is_erased: Callable[[str], bool] = lambda _: False
) -> NDArray[np.int64]:
    """Row numbers of the training samples that a file names, one sample id a line.

    The file is UTF-8, with or without a byte order mark. Empty lines and lines that begin with ``#`` are
    skipped; blanks belong to the id. Lines end in LF or CR LF. Ids of samples that were erased are passed
    over, and the log tells how many: nothing is left of them to forget.

    Parameters
    ----------
    where
        The key that names the file, for messages.
    is_erased
        Whether an id that is no longer there was that of a sample that a request has erased.

    Returns
    -------
    NDArray[np.int64]
        None if every sample that the file names was erased.

    Raises
    ------
    ExpungeError
        If the file cannot be read or names nothing, or if a line is an unknown id, repeats another line,
        or names a test sample; the first such lines are listed.
    """
    row_of = {sample_id: row for row, sample_id in enumerate(image_set.sample_ids)}
    line_of: dict[str, int] = {}
    bad: list[str] = []
    erased: set[str] = set()
    for number, line in listed(path, where):
        if line not in row_of and is_erased(line):
            erased.add(line)
            continue
        problem = _problem(line, row_of, line_of, image_set)
        if problem:
            bad.append(f"line {number} {line[:LONGEST]!r} {problem}")
        line_of.setdefault(line, number)
    if bad:
        more = f"; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise ExpungeError(f"{where}: {path}: {'; '.join(bad[:SHOWN])}{more}")
    if erased:
        log.warning(
            "%s: %s: %d of %d samples were erased and are passed over",
            where, path, len(erased), len(erased) + len(line_of),
        )  # fmt: skip
    elif not line_of and not held_out_rows(path, image_set, where).size:
        raise ExpungeError(f"{where}: {path} names no sample; write one sample id a line")
    return np.array([row_of[sample_id] for sample_id in line_of], dtype=np.int64)


def listed(path: Path, where: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line of such a file that names a sample; parameters as :func:`named_rows`.

    Raises
    ------
    ExpungeError
        If the file cannot be read.
    """
    for number, line in enumerate(_lines(path, where), start=1):
        if line and not line.startswith("#"):
            yield number, line


def held_out_rows(path: Path, image_set: ImageSet, where: str) -> NDArray[np.int64]:
    """Row numbers of the samples that a file names as held out; what is not there is passed over.

    Parameters and errors as of :func:`named_rows`.
    """
    row_of = {sample_id: row for row, sample_id in enumerate(image_set.sample_ids)}
    named = (line.removeprefix(HELD_OUT) for line in _lines(path, where) if line.startswith(HELD_OUT))
    return np.array([row_of[name] for name in dict.fromkeys(named) if name in row_of], dtype=np.int64)


def _lines(path: Path, where: str) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExpungeError(f"{where}: {path} is not UTF-8 text: byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise ExpungeError(f"{where}: {path} cannot be read ({error})") from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _problem(line: str, row_of: dict[str, int], line_of: dict[str, int], image_set: ImageSet) -> str | None:
    if line not in row_of:
        blanks = " (blanks at its ends belong to it)" if line != line.strip() else ""
        return f"is no sample id{blanks}"
    if line in line_of:
        return f"repeats line {line_of[line]}"
    if image_set.is_test[row_of[line]]:
        return "is a test sample; only training samples can be forgotten"
    return None
