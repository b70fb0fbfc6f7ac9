"""The files of a split: images, the table of samples, the manifest of roles, the class names.

Row i is the same sample in all tables, and in what :func:`load_split` returns; where its image lies in the
shards stands in :mod:`tasks.samples.shards`. ``samples.csv`` does not depend on the forget set,
``manifest.csv`` does: a stage that must not depend on the forget set uses :func:`load_samples`.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import write_json, write_text
from tasks.samples.mapped import Images
from tasks.samples.shards import FOLDER as IMAGES
from tasks.samples.shards import read_shards, write_shards
from tasks.samples.table import SPLIT, header, read_classes, read_table

Columns = tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64], NDArray[np.str_]]


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """A CSV file ``sample_id,source,label,<column>``, where ``column`` holds one of ``groups``.

    Attributes
    ----------
    sample_ids, sources
        N unique ids and N references into the source.
    labels
        ``int64 [N]``, class numbers.
    """

    column: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]

    sample_ids: tuple[str, ...]
    sources: tuple[str, ...]
    labels: NDArray[np.int64]

    @property
    def _membership(self) -> NDArray[np.str_]:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.sample_ids)

    def indices(self, group: str) -> NDArray[np.int64]:
        """Row numbers of the samples in ``group``, ascending."""
        if group not in self.groups:
            raise ValueError(f"{group!r} is no {self.column}; known: {', '.join(self.groups)}")
        return np.flatnonzero(self._membership == group)

    def write(self, path: Path) -> None:
        """Write the table whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header(self.column))
        columns = (self.sample_ids, self.sources, self.labels.tolist(), self._membership.tolist())
        writer.writerows(zip(*columns, strict=True))
        write_text(path, text.getvalue())


@dataclass(frozen=True, slots=True, eq=False)
class Samples(_Table):
    """``samples.csv``: the part of the data that a sample belongs to, whatever is to be forgotten.

    ``parts`` holds N of ``train``, ``val`` or ``test``; the other columns are those of the manifest.
    """

    column = "part"
    groups = ("train", "val", "test")

    parts: NDArray[np.str_]

    @property
    def _membership(self) -> NDArray[np.str_]:
        return self.parts

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table; an ExpungeError names the line that is damaged."""
        return cls(*_read(path, cls.column, cls.groups))


@dataclass(frozen=True, slots=True, eq=False)
class Manifest(_Table):
    """``manifest.csv``: the role of every sample.

    ``roles`` holds N of ``retain``, ``forget``, ``val`` or ``test``.
    """

    column = "role"
    groups = ("retain", "forget", "val", "test")

    roles: NDArray[np.str_]

    @property
    def _membership(self) -> NDArray[np.str_]:
        return self.roles

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the table; an ExpungeError names the line that is damaged."""
        return cls(*_read(path, cls.column, cls.groups))


def _read(path: Path, column: str, groups: tuple[str, ...]) -> Columns:
    table = read_table(path, column, groups)
    return table.sample_ids, table.sources, np.array(table.labels, dtype=np.int64), np.array(table.groups)


@dataclass(frozen=True, slots=True, eq=False)
class SplitSamples:
    """The part of a split that does not depend on the forget set; images are ``uint8 [N, C, H, W]``."""

    images: Images
    samples: Samples
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class SplitRoles:
    """Images with the roles of their samples; images are ``uint8 [N, C, H, W]``."""

    images: Images
    manifest: Manifest
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSplit:
    """All of a split; images are ``uint8 [N, C, H, W]``."""

    images: Images
    samples: Samples
    manifest: Manifest
    classes: tuple[str, ...]

    def write(self, folder: Path = SPLIT, *, shard: int = 2**24) -> None:
        """Write every file whole, the largest first: a full disk leaves what was there.

        Tables that the images no longer fit are never left: they go before the first shard is another.

        Parameters
        ----------
        shard
            Bytes of pixels in a shard.
        """

        def forget_tables() -> None:
            for name in ("samples.csv", "manifest.csv"):
                (folder / name).unlink(missing_ok=True)

        ids = self.samples.sample_ids
        write_shards(self.images, ids, folder / IMAGES, shard, before_change=forget_tables)
        self.samples.write(folder / "samples.csv")
        self.manifest.write(folder / "manifest.csv")
        write_json(folder / "classes.json", list(self.classes))


def load_samples(folder: Path = SPLIT, *, mmap: bool = False) -> SplitSamples:
    """Load images, samples and class names, and never look at the manifest.

    Parameters
    ----------
    mmap
        Leave the images in their file even if they are few; many are left there in any case.

    Raises
    ------
    ExpungeError
        If a file is missing, damaged, or does not agree with the others.
    """
    samples = Samples.read(folder / "samples.csv")
    classes = _classes(folder, samples, "samples.csv")
    return SplitSamples(read_shards(folder / IMAGES, samples.sample_ids, mmap=mmap), samples, classes)


def load_roles(folder: Path = SPLIT, *, mmap: bool = False) -> SplitRoles:
    """Load images, manifest and class names; parameters and errors as :func:`load_samples`."""
    manifest = Manifest.read(folder / "manifest.csv")
    classes = _classes(folder, manifest, "manifest.csv")
    return SplitRoles(read_shards(folder / IMAGES, manifest.sample_ids, mmap=mmap), manifest, classes)


def load_split(folder: Path = SPLIT, *, mmap: bool = False) -> LoadedSplit:
    """Load everything; parameters and errors as :func:`load_samples`."""
    loaded = load_samples(folder, mmap=mmap)
    samples, manifest = loaded.samples, Manifest.read(folder / "manifest.csv")
    part_of_role = np.where(np.isin(manifest.roles, ("retain", "forget")), "train", manifest.roles)
    if (
        samples.sample_ids != manifest.sample_ids
        or not np.array_equal(samples.labels, manifest.labels)
        or not np.array_equal(samples.parts, part_of_role)
    ):
        raise ExpungeError(f"{folder}: samples.csv and manifest.csv are of different splits; {RESTORE}")
    return LoadedSplit(loaded.images, samples, manifest, loaded.classes)


def _classes(folder: Path, table: _Table, name: str) -> tuple[str, ...]:
    return read_classes(folder / "classes.json", int(table.labels.max()), folder / name)
