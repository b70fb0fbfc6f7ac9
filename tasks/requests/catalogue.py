"""The samples that there are, by every name that a request may use.

Names that are canonically equivalent in Unicode are one name: whether ``é`` is written as one character or
as two depends on the system that a file passed through, not on who writes the request. What is stored is
compared so and never changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import holder, read_json
from tasks.requests.copies import Copies
from tasks.requests.neighbours import Neighbours
from tasks.requests.schema import Kind, Named
from tasks.requests.subjects import Subjects
from tasks.samples.table import COPIES, SPLIT, SUBJECTS, TAKEN, Table, read_classes, read_copies, read_table
from tasks.samples.unicode_forms import composed

PATIENCE = 120.0
"""Seconds to wait for a split that is being made."""

PARTS = ("train", "val", "test")

LOST = {
    "id": "is no sample id",
    "path": "is no file or row of the source",
    "index": "is no row of the source's training part",
    "class": "is no class; data/split/classes.json lists them",
    "subject": "is nobody of whom a sample is held",
}
"""Why a name means no sample. The ledger keeps these, so they name nothing."""

RowCounts = Sequence[tuple[str, int]]
Groups = Mapping[str, tuple[int, int]]

N = TypeVar("N")


class Catalogue:
    """Samples of the data set as ``split`` read it last.

    A row's index counts through all files of the source's training part, in the order in which the source
    reads them, and also through rows that were erased: it means the same row for ever. Ledgers written
    before it did so hold digests of the row number within its file. For a source of one file they are equal.
    For one of several, a request for a row that is gone is recognised by its old number alone, as if that
    were the new one: the answer is still that it was erased, perhaps by another request than the one named.

    Parameters
    ----------
    table
        ``samples.csv``.
    classes
        Names of the classes.
    row_counts
        Files of the training part, in order, with the number of their rows; none if the source has no rows.
    groups
        Numbers of a sample's group of equal pictures and of those alike; ``None`` if nobody has looked.
    has_test
        Whether the test part is the source's own; if not, one was taken of the training images.
    subjects
        Whose the samples are.
    """

    def __init__(
        self,
        table: Table,
        classes: tuple[str, ...],
        row_counts: RowCounts,
        groups: Groups | None = None,
        *,
        has_test: bool = True,
        subjects: Subjects | None = None,
    ) -> None:
        self.subjects = subjects or Subjects((), "")
        self.neighbours = Neighbours()
        self._groups = groups
        self._has_test = has_test
        self.classes = classes
        self.sources: Mapping[str, str] = dict(zip(table.sample_ids, table.sources, strict=True))
        """Source reference by sample id: a file's path, or ``<file>#<row>``."""
        self._table = table
        self._tests = {
            name for name, part in zip(table.sample_ids, table.groups, strict=True) if part == "test"
        }
        self._rows: dict[str, range] = {}
        first = 0
        for file, count in row_counts:
            self._rows[file] = range(first, first + count)
            first += count

    @classmethod
    def load(cls, folder: Path = SPLIT, *, patience: float = PATIENCE) -> Catalogue:
        """Read ``samples.csv``, ``classes.json``, ``rows.json`` and, if it is there, ``copies.csv``.

        While a stage makes them again, DVC has taken the old ones away; then this waits for ``patience``
        seconds.

        Raises
        ------
        ExpungeError
            If they are missing or damaged.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                return cls._read(folder)
            except ExpungeError:
                if time.monotonic() > deadline or not _is_being_made(folder):
                    raise
                time.sleep(0.5)

    @classmethod
    def load_or_none(
        cls, folder: Path = SPLIT, *, patience: float = PATIENCE
    ) -> tuple[Catalogue | None, str]:
        """Return what :meth:`load` does, or ``None`` and the reason in one line.

        For those who can do their work without: a request is received whether or not it can be validated.
        """
        try:
            return cls.load(folder, patience=patience), ""
        except ExpungeError as error:
            return None, str(error)
        except OSError as error:
            return None, f"{error.filename or folder} cannot be read ({error.strerror or error})"

    @classmethod
    def _read(cls, folder: Path) -> Catalogue:
        path = folder / "samples.csv"
        table = read_table(path, "part", PARTS)
        classes = read_classes(folder / "classes.json", max(table.labels), path)
        row_counts = _row_counts(folder / "rows.json")
        groups = read_copies(folder / COPIES) if (folder / COPIES).exists() else None
        if groups and not groups.keys() <= set(table.sample_ids):
            raise ExpungeError(f"{folder}: samples.csv and {COPIES} are of different splits; {RESTORE}")
        subjects = Subjects.read(folder)
        if not subjects.shown.keys() <= set(table.sample_ids):
            raise ExpungeError(f"{folder}: samples.csv and {SUBJECTS} are of different splits; {RESTORE}")
        has_test = _has_test(folder / "metrics.json")
        return cls(table, classes, row_counts, groups, has_test=has_test, subjects=subjects)

    @property
    def tells_copies(self) -> bool:
        """Whether the split says which samples show the same picture; one of before does not."""
        return self._groups is not None

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """Class numbers of training and validation samples by id."""
        rows = zip(self._table.sample_ids, self._table.labels, self._table.groups, strict=True)
        return {name: label for name, label, part in rows if part != "test"}

    def ids(self, named: Named) -> Sequence[str]:
        """Ids of the samples that a name means; none if it means none."""
        return list(self._found(named))

    def is_own_test(self, sample_id: str) -> bool:
        """Whether a sample is of the source's own test part, on which no model is ever trained."""
        return self._has_test and sample_id in self._tests

    def rows_of(self, sample_ids: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
        """Yield id, source, part and class name of each of some samples that are there."""
        rows = zip(
            self._table.sample_ids, self._table.sources, self._table.groups, self._table.labels, strict=True
        )
        for name, source, part, label in rows:
            if name in sample_ids:
                yield name, source, part, self.classes[label]

    def problem(self, named: Named) -> str | None:
        """Return why a name cannot be used, or ``None`` if it can."""
        found = self._found(named)
        if named.kind == "class":
            if found:
                return None
            known = self._class_number(str(named.value)) is not None
            return "is a class of which no samples are left" if known else LOST["class"]
        if named.kind == "index" and not self._rows:
            return "the source has no rows to count; use id or path"
        if len(found) > 1:
            return f"means {len(found)} samples; write one as it stands in data/split/samples.csv"
        if not found:
            blanks = isinstance(named.value, str) and named.value != named.value.strip()
            return LOST[named.kind] + (" (blanks at its ends belong to it)" if blanks else "")
        return None

    def names_for(self, sample_id: str) -> list[tuple[Kind, str]]:
        """Return the names of one sample, its class left out; the ledger keeps their digests.

        Raises
        ------
        ExpungeError
            If the files of the split do not belong together.
        """
        source = self.sources[sample_id]
        names: list[tuple[Kind, str]] = [("id", sample_id), ("path", source)]
        index = self._index_of(source)
        return names if index is None else [*names, ("index", str(index))]

    def copies_of(self, sample_ids: Collection[str], near: Collection[str] = ()) -> Copies | None:
        """Return the other samples that show the same pictures, or nearly the same, and copies of these.

        Parameters
        ----------
        sample_ids
            Those that are asked for.
        near
            What is near to them by the model's features, of which no copies are looked for.

        Returns
        -------
        Copies or None
            ``None`` if the split is of before.
        """
        if self._groups is None:
            return None
        asked = [group for name in sample_ids if (group := self._groups.get(name))]
        same, alike = ({numbers[place] for numbers in asked} - {0} for place in (0, 1))
        found: tuple[list[str], ...] = ([], [], [], [], [])
        for name, numbers in self._groups.items():
            if numbers[1] in alike and name not in sample_ids:
                found[2 if name in self._tests else int(numbers[0] not in same)].append(name)
        told = {*sample_ids, *(name for names in found for name in names)}
        for name in self.sources if near else ():
            if name in near and name not in told:
                found[4 if name in self._tests else 3].append(name)
        return Copies(*map(tuple, found))

    def _found(self, named: Named) -> Sequence[str]:
        """Ids of the samples that a name means; of a class, its training and validation samples."""
        if named.kind == "index":
            return self._by_index.get(int(named.value), ())
        if named.kind == "class":
            return self._members(str(named.value))
        value, stored = str(named.value), self._by_name[named.kind]
        if value in stored:
            return stored[value]
        form = composed(value)
        return (*stored.get(form, ()), *self._by_form[named.kind].get(form, ()))

    def _members(self, value: str) -> Sequence[str]:
        """Ids of a class's training and validation samples."""
        number = self._class_number(value)
        rows = zip(self._table.sample_ids, self._table.labels, self._table.groups, strict=True)
        return [name for name, label, part in rows if label == number and part != "test"]

    def _class_number(self, value: str) -> int | None:
        if value in self.classes:
            return self.classes.index(value)
        form = composed(value)
        equivalent = [n for n, name in enumerate(self.classes) if composed(name) == form]
        return equivalent[0] if len(equivalent) == 1 else None

    @cached_property
    def _by_name(self) -> dict[Kind, dict[str, tuple[str, ...]]]:
        ids = self._table.sample_ids
        return {
            "id": {name: (name,) for name in ids},
            "path": _grouped(zip(self._table.sources, ids, strict=True)),
        }

    @cached_property
    def _by_form(self) -> dict[Kind, dict[str, tuple[str, ...]]]:
        """Samples by the composed form of those names that are stored in another."""
        return {
            kind: _grouped(
                (form, sample_id)
                for name, sample_ids in stored.items()
                if (form := composed(name)) != name
                for sample_id in sample_ids
            )
            for kind, stored in self._by_name.items()
        }

    @cached_property
    def _by_index(self) -> dict[int, tuple[str, ...]]:
        rows = ((self._index_of(source), sample_id) for sample_id, source in self.sources.items())
        return _grouped((index, sample_id) for index, sample_id in rows if index is not None)

    def _index_of(self, source: str) -> int | None:
        """Which row of the training part a source reference is, through all files; ``None`` if it is none."""
        file, _, number = source.rpartition("#")
        rows = self._rows.get(file)
        if rows is None or not (number.isascii() and number.isdigit()):
            return None
        if int(number) >= len(rows):
            raise ExpungeError(f"{SPLIT}: samples.csv and rows.json are of different splits; {RESTORE}")
        return rows[int(number)]


def _grouped(pairs: Iterable[tuple[N, str]]) -> dict[N, tuple[str, ...]]:
    found: dict[N, tuple[str, ...]] = {}
    for name, sample_id in pairs:
        found[name] = (*found.get(name, ()), sample_id)
    return found


def _row_counts(path: Path) -> RowCounts:
    content = read_json(path)
    entries = content if isinstance(content, list) else [content]
    if all(isinstance(entry, dict) and set(entry) == {"file", "rows"} for entry in entries):
        counts = {str(entry["file"]): entry["rows"] for entry in entries}
        if len(counts) == len(entries) and all(type(rows) is int and rows >= 0 for rows in counts.values()):
            return tuple(counts.items())
    raise ExpungeError(f"{path} is no list of files and their rows; {RESTORE}")


def _has_test(path: Path) -> bool:
    """Whether the test part is the source's own, as the split's counts tell."""
    content = read_json(path) if path.exists() else {}
    return not (isinstance(content, dict) and content.get(TAKEN))


def _is_being_made(folder: Path) -> bool:
    """Whether a stage may be writing the split: split itself, or another process's pipeline."""
    return holder(folder) is not None or holder(Path("pipeline")) not in {None, os.getpid()}
