"""A table beside a folder of image files: one row an image, with its path and its label."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core import dvc_cache
from tasks.core.errors import ExpungeError
from tasks.core.files import clear_parts, write_text, write_whole
from tasks.core.params import Split
from tasks.datasets import register
from tasks.datasets._reading import hub_columns as hub
from tasks.datasets._reading.below import refuse_escaping
from tasks.datasets._reading.csv_text import as_csv, rows_of, separator_of, spelled
from tasks.datasets._reading.decode import SHOWN, Decoder
from tasks.datasets._reading.hub_files import NAMES
from tasks.datasets._reading.still import Decoding
from tasks.datasets._reading.subjects import references_in
from tasks.samples.check import PartlyErased, is_plain
from tasks.samples.image_set import ImageSet
from tasks.samples.unicode_forms import composed

log = logging.getLogger(__name__)

PATH = (
    "path", "file_name", "filename", "file", "image_path", "file_path", "filepath", "image_name", "image",
)  # fmt: skip
SPLIT = "split"
TSV = ".tsv"
KINDS = (".csv", TSV, ".parquet")

REWRITTEN = KINDS
"""Ends of the names of files that :func:`remove` writes anew without the erased, instead of deleting them."""

NUMBER = re.compile(r"-?[0-9]+")

MARK = ".expunge-known.json"
"""Classes and parts there were before the first image left: they stay, and so do the numbers of classes."""


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The table as it was read; cells are of all rows, empty ones None.

    Attributes
    ----------
    file
        The table's.
    path, label, split, subject
        Names of the columns; None of those that it lacks.
    names
        Paths below the root, composed of ``/`` and normalised.
    lines
        Where the rows stand: lines of a text, or numbers of rows.
    separator
        What stands between the cells of a text.
    """

    file: Path
    columns: dict[str, Sequence[object]]
    path: str
    label: str
    split: str | None
    subject: str | None
    lines: Sequence[int]
    separator: str = ","

    def cells(self, column: str | None) -> Sequence[object]:
        """Return the cells of a column; None of one that there is not."""
        return self.columns[column] if column else [None] * len(self.lines)

    def where(self, row: int) -> str:
        """Say where a row stands, for messages."""
        kind = "row" if self.file.suffix.lower() == ".parquet" else "line"
        return f"{self.file}, {kind} {self.lines[row]}"


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table says of one image, in one row or several."""

    name: str
    label: str
    part: str
    subjects: tuple[str, ...]
    first: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What there was before the first image left, and what is on its way out."""

    classes: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        write_text(path / MARK, json.dumps(asdict(self), ensure_ascii=False) + "\n")


@register
def table(path: Path, split: Split) -> ImageSet:
    """Read the images that a CSV, TSV or Parquet file in the folder ``path`` lists.

    The table is the file ``split.table`` below ``path``, or else the only one of its kind there. Its columns
    are ``path`` (or another of :data:`PATH`), ``label`` (or
    ``split.label_column``, or another that hubs use), and if wanted ``split`` (train, val, test) and
    ``subject`` (or what ``split.subject`` names). Paths lie below ``split.root``, a folder below ``path``;
    absolute ones must lead there, too. Labels are numbers or names, and are the classes' names; several rows
    of one image may name several people. A sample's id is its path below ``path``, with forward slashes.

    Raises
    ------
    ExpungeError
        If the table is not found or is damaged, an image is missing, listed twice with other words, cannot
        be used, or lies outside the root.
    """
    found, known = _read(path, split), _known(path)
    rows = [
        row
        for row in _rows(path, found, split)
        if row.name not in known.leaving or (path / row.name).exists()
    ]
    classes = _classes(path, {row.label for row in rows})
    number = {name: index for index, name in enumerate(classes)}
    rows.sort(key=lambda row: row.name)
    decoder = Decoder(len(rows), Decoding.of(split), path)
    for row in rows:
        if problem := _problem(path, row.name):
            decoder.refuse(f"{row.name}, line {found.lines[row.first]} of {found.file.name}", problem)
        else:
            decoder.add(str(path / row.name), row.name)
    images = decoder.finish()
    parts = np.array([row.part for row in rows])
    labels = np.array([number[row.label] for row in rows], dtype=np.int64)
    trained = set(labels[parts == "train"].tolist())
    return PartlyErased(
        images=images,
        labels=labels,
        sample_ids=tuple(row.name for row in rows),
        sources=tuple(row.name for row in rows),
        is_test=parts == "test",
        classes=classes,
        pictures=decoder.pictures,
        is_val=parts == "val" if np.any(parts == "val") else None,
        subjects=tuple(row.subjects for row in rows) if found.subject else None,
        has_test="test" in {*parts.tolist(), *known.parts},
        erased_classes=frozenset(range(len(classes))) - trained if (path / MARK).exists() else frozenset(),
    )


def encoded(path: Path, references: Collection[str], split: Split) -> dict[str, bytes]:  # noqa: ARG001
    """Return the bytes of the files that ``references`` name, where they are there."""
    refuse_escaping(path, references)
    files = ((name, path / name) for name in references if _problem(path, name) is None)
    return {name: file.read_bytes() for name, file in files}


def remove(path: Path, references: Collection[str], split: Split) -> list[Path]:
    """Delete the files that ``references`` name, and their rows; see :mod:`tasks.erasure.originals`.

    What is about to leave is written down first: if the process dies in between, its rows are passed over,
    and the next call takes them out.
    """
    refuse_escaping(path, references)
    clear_parts(path)
    found, known = _read(path, split), _known(path)
    names = [_name(path, cell, split) for cell in found.cells(found.path)]
    leaving = {*references, *known.leaving}
    going = [row for row, name in enumerate(names) if name in leaving]
    if going:
        rows = _rows(path, found, split)
        classes = known.classes or _classes(path, {row.label for row in rows})
        parts = known.parts or tuple(sorted({row.part for row in rows}))
        known = _Known(classes, parts, tuple(sorted(leaving.intersection(names))))
        known.write(path)
    deleted = []
    for name in sorted(leaving):
        with suppress(FileNotFoundError):
            (path / name).unlink()
            deleted.append(path / name)
    if deleted:
        os.sync()  # a power cut must not bring them back
    if going:
        _write_without(found, frozenset(going))
        _Known(known.classes, known.parts).write(path)
        deleted.append(found.file)
    return deleted


def _file(path: Path, split: Split) -> Path:
    if not path.is_dir():
        raise ExpungeError(f"{path} is no folder; source table needs one that holds the table and the images")
    if split.table is not None:
        file = path / split.table
        if file.suffix.lower() not in KINDS or not file.is_file():
            raise ExpungeError(f"split.table: {file} is no file that ends in {', '.join(KINDS)}")
        return file
    files = [each for each in sorted(path.iterdir()) if each.suffix.lower() in KINDS and each.is_file()]
    if len(files) != 1:
        there = f"holds {', '.join(each.name for each in files)}" if files else "holds no table"
        raise ExpungeError(
            f"{path} {there}; set split.table to the {', '.join(KINDS)} file that lists the images"
        )
    return files[0]


def _read(path: Path, split: Split) -> _Table:
    file = _file(path, split)
    separator = "\t" if file.suffix.lower() == TSV else separator_of(file, PATH)
    columns, lines = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file, separator)
    names = list(columns)
    by_spelling = {spelled(name): name for name in reversed(names)}
    paths = [by_spelling[name] for name in PATH if name in by_spelling]
    if not paths:
        raise ExpungeError(f"{file} has no column path (or {', '.join(PATH[1:])}); found {', '.join(names)}")
    schema = pa.schema([(name, pa.string()) for name in names])
    subject = hub.subject_column(file, schema, split)
    label = hub.label_column(file, schema, split)
    return _Table(file, columns, paths[0], label, by_spelling.get(SPLIT), subject, lines, separator)


def _csv(file: Path, separator: str) -> tuple[dict[str, Sequence[object]], Sequence[int]]:
    (_, head), *rows = rows_of(file, separator)
    if len(set(head)) < len(head):
        raise ExpungeError(f"{file}, line 1: two columns have the same name; found {', '.join(head)}")
    columns: dict[str, Sequence[object]] = {
        name: [row[place] for _, row in rows] for place, name in enumerate(head)
    }
    return columns, [line for line, _ in rows]


def _parquet(file: Path) -> tuple[dict[str, Sequence[object]], Sequence[int]]:
    try:
        read = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ExpungeError(
            f"{file} is not a readable Parquet file: {(str(error).splitlines() or ['?'])[0]}"
        ) from None
    names = hub.class_names(read.schema, "label")
    columns = {name: read.column(name).to_pylist() for name in read.column_names}
    if names and "label" in columns:
        columns["label"] = [
            names[label] if isinstance(label, int) and 0 <= label < len(names) else label
            for label in columns["label"]
        ]
    return columns, range(len(read))


def _rows(path: Path, found: _Table, split: Split) -> list[_Row]:
    """Read what the table says of each image; all that is wrong is told at once."""
    rows: dict[str, _Row] = {}
    problems: list[str] = []
    cells = zip(*map(found.cells, (found.path, found.label, found.split, found.subject)), strict=True)
    for number, (file, label_cell, part_cell, subject) in enumerate(cells):
        where = found.where(number)
        name, label, part = _name(path, file, split), _text(label_cell), _text(part_cell)
        if found.split is not None and part.lower() not in NAMES:
            problems.append(f"{where}: split {part[:80]!a}; train, val or test is right")
        elif not label:
            problems.append(f"{where}: no label")
        elif not name:
            problems.append(f"{where}: path {_text(file)[:80]!a}; one below {path / split.root} is right")
        else:
            row = _Row(name, label, NAMES.get(part.lower(), "train"), references_in(subject, where), number)
            before = rows.get(name)
            if before is None:
                rows[name] = row
            elif (before.label, before.part) == (row.label, row.part) and row.subjects and before.subjects:
                several = tuple(dict.fromkeys([*before.subjects, *row.subjects]))
                rows[name] = _Row(name, label, row.part, several, before.first)
            else:
                problems.append(f"{where}: {name[:80]!a} is listed before, at {found.lines[before.first]}")
    labels = {row.label for row in rows.values()}
    if labels and all(NUMBER.fullmatch(label) for label in labels):
        problems += [
            f"{found.where(row.first)}: label {row.label}; numbers from 0, or names, are right"
            for row in rows.values()
            if row.label.startswith("-")
        ]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ExpungeError(f"{'; '.join(problems[:SHOWN])}{more}")
    if not rows:
        raise ExpungeError(f"{found.file} lists no image")
    return list(rows.values())


def _name(path: Path, cell: object, split: Split) -> str:
    """Path of an image below ``path``, as an id has it; empty if it is none."""
    text = _text(cell).replace("\\", "/")
    if not text or not is_plain(text):
        return ""
    root = path.absolute() / split.root
    whole = Path(os.path.normpath(text if text.startswith("/") else f"{root.as_posix()}/{text}"))
    if not whole.is_relative_to(os.path.normpath(root)) or not whole.is_relative_to(path.absolute()):
        return ""
    return _as_stored(path, whole.relative_to(path.absolute()).as_posix())


def _as_stored(path: Path, name: str) -> str:
    """Return a path as the folder spells it: a table may write ``é`` in another way."""
    if name.isascii() or (path / name).exists():
        return name
    folder = PurePosixPath(name).parent
    with suppress(OSError):
        for entry in sorted(os.listdir(path / folder)):  # noqa: PTH208  (names are all that is needed)
            if composed(entry) == composed(PurePosixPath(name).name):
                return (folder / entry).as_posix()
    return name


def _text(cell: object) -> str:
    """Return a cell as text; numbers that are whole are written so, whatever a spreadsheet made of them."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _problem(path: Path, name: str) -> str | None:
    file = path / name
    try:
        real = file.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is not there" if not file.is_symlink() else "broken link"
    if not real.is_relative_to(path.resolve()) and not dvc_cache.holds(real):
        return "link that leaves the folder"
    return None if real.is_file() else "is no file"


def _classes(path: Path, labels: Collection[str]) -> tuple[str, ...]:
    """Names of the classes: numbers in the order of numbers, or else names in the order of names."""
    known = {*labels, *_known(path).classes}
    if all(name.isascii() and name.isdigit() for name in known):
        return tuple(sorted(known, key=lambda name: (int(name), name)))
    return tuple(sorted(known))


def _known(path: Path) -> _Known:
    try:
        content = json.loads((path / MARK).read_text(encoding="utf-8"))
        return _Known(**{name: tuple(content[name]) for name in ("classes", "parts", "leaving")})
    except FileNotFoundError:
        return _Known()
    except (ValueError, KeyError, TypeError):
        raise ExpungeError(f"{path / MARK} is damaged; restore it") from None


def _write_without(found: _Table, going: Collection[int]) -> None:
    """Write the table anew without some rows; all else in it stays."""
    kept = [row for row in range(len(found.lines)) if row not in going]
    if found.file.suffix.lower() == ".parquet":
        whole = pq.read_table(found.file)
        with write_whole(found.file) as file:
            pq.write_table(whole.take(kept), file)
        return
    rows: Iterator[list[str]] = ([str(cells[row]) for cells in found.columns.values()] for row in kept)
    write_text(found.file, as_csv([list(found.columns), *rows], found.separator))
