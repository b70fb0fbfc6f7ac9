"""Whose the samples of a split are: keyed digests, in the data set and wherever it is copied to."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_text
from tasks.requests.keys import SUBJECTS_KEY, KeyStore, check_value, references
from tasks.samples.table import SPLIT, SUBJECTS, SUBJECTS_HEAD, rows_of

KIND = "subject"
"""Of the digests."""

TOLD = 16
"""Hex digits that tell the key."""


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
        """Return the ids of a person's samples, in the order of the table.

        Raises
        ------
        ExpungeError
            If the key is not there, or is not the one that the table was written under.
        """
        if not self:
            return []
        digest = references(self._key(keys), KIND)(name)
        return [sample_id for sample_id, each in self.rows if each == digest]

    @cached_property
    def people(self) -> dict[str, int]:
        """How many people each sample shows."""
        counts: dict[str, int] = {}
        for sample_id, _ in self.rows:
            counts[sample_id] = counts.get(sample_id, 0) + 1
        return counts

    def _key(self, keys: KeyStore) -> bytes:
        where = f"{keys.folder}; copy {SUBJECTS_KEY}.key there, or run: dvc repro --force --single-item split"
        if not keys.exists(SUBJECTS_KEY):
            raise ExpungeError(f"{SPLIT / SUBJECTS} names people under a key that is not in {where}")
        key = keys.load(SUBJECTS_KEY)
        if check_value(key)[:TOLD] != self.told:
            raise ExpungeError(
                f"{SPLIT / SUBJECTS} names people under another key than {SUBJECTS_KEY}.key in {where}"
            )
        return key
