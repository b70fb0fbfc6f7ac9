"""The samples that there are, by every name that a request may use."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import at_work
from tasks.requests.schema import Kind, Named
from tasks.samples.manifest import SPLIT, Samples, read_classes

PATIENCE = 120.0
"""Seconds to wait for a split that is being made."""

LOST = {
    "id": "is no sample id",
    "path": "is no file or row of the source",
    "index": "is no row of the source's training part",
    "class": "is no class",
}
"""Why a name means no sample."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Samples of the data set as ``split`` read it last.

    Attributes
    ----------
    sources
        Source reference by sample id: a file's path, or ``<file>#<row>``.
    by_name
        Ids of the samples that a name means, training and validation samples only.
    tests
        Names that mean test samples.
    classes
        Names of the classes.
    labels
        Class numbers of training and validation samples by id.
    """

    sources: Mapping[str, str]
    by_name: Mapping[tuple[Kind, str], Sequence[str]]
    tests: frozenset[tuple[Kind, str]]
    classes: tuple[str, ...]
    labels: Mapping[str, int]

    @classmethod
    def load(cls, folder: Path = SPLIT, *, patience: float = PATIENCE) -> Catalogue:
        """Read ``samples.csv`` and ``classes.json``.

        While they are made again, DVC has taken the old ones away; then this waits for ``patience`` seconds.

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
                if time.monotonic() > deadline or not any(map(at_work, (Path("pipeline"), folder))):
                    raise
                time.sleep(0.5)

    @classmethod
    def _read(cls, folder: Path) -> Catalogue:
        samples = Samples.read(folder / "samples.csv")
        classes = read_classes(folder / "classes.json", samples, folder / "samples.csv")
        by_name: dict[tuple[Kind, str], list[str]] = defaultdict(list)
        tests: set[tuple[Kind, str]] = set()
        labels: dict[str, int] = {}
        rows = zip(samples.sample_ids, samples.sources, samples.labels.tolist(), samples.parts, strict=True)
        for sample_id, source, label, part in rows:
            names = names_of(sample_id, source)
            if part == "test":
                tests.update(names)
                continue
            labels[sample_id] = label
            for name in [*names, ("class", classes[label])]:
                by_name[name].append(sample_id)
        sources = dict(zip(samples.sample_ids, samples.sources, strict=True))
        return cls(sources, dict(by_name), frozenset(tests), classes, labels)

    def ids(self, named: Named) -> Sequence[str]:
        """Ids of the samples that a name means; none if it means none."""
        return self.by_name.get((named.kind, str(named.value)), ())

    def problem(self, named: Named) -> str | None:
        """Return why a name cannot be used, or ``None`` if it can."""
        name = (named.kind, str(named.value))
        found = len(self.by_name.get(name, ()))
        if not found and name in self.tests and named.kind != "index":
            return "is a test sample, which no model was trained on; remove it from the source instead"
        if not found and named.kind == "class":
            return f"{LOST['class']}; known: {', '.join(self.classes[:20])}"
        if not found:
            blanks = isinstance(named.value, str) and named.value != named.value.strip()
            return LOST[named.kind] + (" (blanks at its ends belong to it)" if blanks else "")
        if found > 1 and named.kind == "index":
            return f"is a row of {found} files; use path, such as {self.sources[self.by_name[name][0]]}"
        return None


def names_of(sample_id: str, source: str) -> list[tuple[Kind, str]]:
    """Return the names of one sample, its class left out."""
    names: list[tuple[Kind, str]] = [("id", sample_id), ("path", source)]
    row = source.rpartition("#")[2]
    if "#" in source and row.isascii() and row.isdigit():
        names.append(("index", str(int(row))))
    return names
