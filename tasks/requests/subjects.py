"""Whose the samples of a split are: keyed digests, in the data set and wherever it is copied to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_text
from tasks.requests.keys import SUBJECTS_KEY, KeyStore, check_value, references
from tasks.samples.table import SPLIT, SUBJECTS, SUBJECTS_HEAD, rows_of
from tasks.samples.unicode_forms import forms

KIND = "subject"
"""Of the digests."""

TOLD = 16
"""Hex digits that tell the key."""

SHOWN = 5
"""How many samples are named in words; JSON names all."""

HOW_TO_TELL = (
    "the split does not say whose its samples are: let the source tell (a column named in split.subject, or "
    "subjects.csv beside the images), then: dvc repro split"
)


class LostSubjectsKeyError(ExpungeError):
    """The key of a table that names people is not there, or is another one."""


def write_subjects(
    sample_ids: Sequence[str], subjects: Sequence[tuple[str, ...]] | None, keys: KeyStore, folder: Path
) -> None:
    """Write whose the samples are beside the images of a split, whole: one row a sample and person.

    Parameters
    ----------
    sample_ids
        N ids.
    subjects
        N tuples of references; None if the source does not tell: then the table has a header alone.
    keys
        Holds the key of the digests; the first time, it is drawn.
    """
    text = io.StringIO(newline="")
    if subjects is None or not any(subjects):
        text.write(f"{SUBJECTS_HEAD}\n")
    else:
        key = keys.load(SUBJECTS_KEY) if keys.exists(SUBJECTS_KEY) else keys.create(SUBJECTS_KEY)
        digest = references(key, KIND)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(f"{SUBJECTS_HEAD}{check_value(key)[:TOLD]}".split(","))
        writer.writerows(
            (sample_id, digest(name))
            for sample_id, names in zip(sample_ids, subjects, strict=True)
            for name in names
        )
    write_text(folder / SUBJECTS, text.getvalue())


@dataclass(frozen=True)
class Subjects:
    """Whose the samples of a split are.

    Attributes
    ----------
    rows
        Sample ids with the digests of their people, one each.
    told
        What tells the key; empty if the source does not say whose its samples are.
    """

    rows: tuple[tuple[str, str], ...]
    told: str

    @classmethod
    def read(cls, folder: Path = SPLIT) -> Subjects:
        """Read the table; one that is missing, of a split of before, tells of nobody.

        Raises
        ------
        ExpungeError
            If it is damaged.
        """
        path = folder / SUBJECTS
        if not path.exists():
            return cls((), "")
        head, rows = rows_of(path)
        sample_id, _, subject = head.partition(",")
        if (sample_id, subject.partition(":")[0]) != ("sample_id", "subject"):
            raise ExpungeError(f"{path}, line 1: the header is not {SUBJECTS_HEAD}; {RESTORE}")
        return cls(tuple((row[0], row[1]) for row in rows), subject.partition(":")[2])

    def __bool__(self) -> bool:
        return bool(self.told)

    def of(self, name: str, keys: KeyStore) -> list[str]:
        """Return the ids of a person's samples, in the table's order; errors as of :meth:`digests_of`."""
        wanted = self.digests_of(name, keys)
        return list(dict.fromkeys(sample_id for sample_id, each in self.rows if each in wanted))

    def digests_of(self, name: str, keys: KeyStore) -> frozenset[str]:
        """Return what stands for a person in the table, in whichever form of Unicode the source has the name.

        Raises
        ------
        LostSubjectsKeyError
            If the key is not there, or is not the one that the table was written under.
        """
        if not self:
            return frozenset()
        digest = references(self._key(keys), KIND)
        return frozenset(map(digest, forms(name)))

    def why_nobody(self, keys: KeyStore) -> str:
        """Return in one line why nobody can be found, though the table names people; empty if they can."""
        try:
            self.digests_of("", keys)
        except ExpungeError as error:
            return str(error)
        return ""

    @cached_property
    def shown(self) -> dict[str, frozenset[str]]:
        """Whom each sample shows."""
        found: dict[str, set[str]] = {}
        for sample_id, each in self.rows:
            found.setdefault(sample_id, set()).add(each)
        return {sample_id: frozenset(each) for sample_id, each in found.items()}

    @property
    def people(self) -> dict[str, int]:
        """How many people each sample shows."""
        return {sample_id: len(each) for sample_id, each in self.shown.items()}

    def _key(self, keys: KeyStore) -> bytes:
        where = f"{keys.folder}; copy {SUBJECTS_KEY}.key there, or run: dvc repro --force --single-item split"
        if not keys.exists(SUBJECTS_KEY):
            raise LostSubjectsKeyError(f"{SPLIT / SUBJECTS} names people under a key that is not in {where}")
        key = keys.load(SUBJECTS_KEY)
        if check_value(key)[:TOLD] != self.told:
            raise LostSubjectsKeyError(
                f"{SPLIT / SUBJECTS} names people under another key than {SUBJECTS_KEY}.key in {where}"
            )
        return key


def shared_lines(people: Mapping[str, int]) -> Iterator[str]:
    """Name samples that show several people, for whoever decides; never for the record.

    Parameters
    ----------
    people
        How many people each sample shows, by id.
    """
    if people:
        yield f"{len(people)} sample(s) show other people, too:"
    for number, (name, count) in enumerate(people.items()):
        if number == SHOWN:
            yield f"  and {len(people) - SHOWN} more; --json names all"
            return
        yield f"  {name}: {count} people"
