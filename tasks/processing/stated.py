"""What a person states that weights were trained on, held against the data set and what was erased."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.samples.ids import LONGEST, SHOWN, listed
from tasks.samples.manifest import Samples

OPTION = "--trained-on"

NEVER = "a model that has seen what was erased must not go into production"


@dataclass(frozen=True, slots=True, eq=False)
class TrainedOn:
    """The samples that weights were trained on.

    Attributes
    ----------
    seen
        ``bool [N]``, of each sample of the split.
    is_all
        Whether all training samples are stated, and not a list.
    """

    seen: NDArray[np.bool_]
    is_all: bool

    def count(self, samples: Samples, part: str) -> int:
        """How many of a part they were trained on."""
        return int(np.count_nonzero(self.seen[samples.indices(part)]))

    def unseen(self, samples: Samples, *parts: str) -> list[str]:
        """Ids of the samples of these parts that they were not trained on."""
        rows = [row for part in parts for row in samples.indices(part) if not self.seen[row]]
        return [samples.sample_ids[row] for row in rows]


def trained_on(path: Path | None, samples: Samples, is_erased: Callable[[str], bool]) -> TrainedOn:
    """Return the samples that a file of ids names; all training samples if there is no file.

    Parameters
    ----------
    path
        A sample id a line, of whatever part, in the form of :func:`~tasks.samples.ids.named_rows`.
    samples
        Of the split.
    is_erased
        Whether an id is that of a sample which a request has erased.

    Raises
    ------
    ExpungeError
        If a line names no sample, stands twice, or names one that was erased; if nothing is named; or if the
        split itself has erased samples.
    """
    back = sum(map(is_erased, samples.sample_ids))
    if back:
        raise ExpungeError(
            f"data/split has {back} sample(s) that were erased; make it again without them: dvc repro split"
        )
    if path is None:
        return TrainedOn(samples.parts == "train", is_all=True)
    row_of = {name: row for row, name in enumerate(samples.sample_ids)}
    line_of = _lines(path, row_of, is_erased)
    if not line_of:
        raise ExpungeError(f"{OPTION}: {path} names no sample; write one sample id a line")
    seen = np.zeros(len(samples), dtype=np.bool_)
    seen[[row_of[name] for name in line_of]] = True
    return TrainedOn(seen, is_all=False)


def _lines(path: Path, known: Mapping[str, int], is_erased: Callable[[str], bool]) -> Collection[str]:
    line_of: dict[str, int] = {}
    bad: list[str] = []
    erased: list[str] = []
    for number, name in listed(path, OPTION):
        if name in line_of:
            bad.append(f"line {number} {name[:LONGEST]!r} repeats line {line_of[name]}")
        elif name not in known and is_erased(name):
            erased.append(str(number))
        elif name not in known:
            bad.append(f"line {number} {name[:LONGEST]!r} is no sample id")
        line_of.setdefault(name, number)
    if erased:
        lines = f"line{'s' if len(erased) > 1 else ''} {_some(erased, ', ')}"
        raise ExpungeError(f"{OPTION}: {path}: {lines}: erased by request; {NEVER}")
    if bad:
        raise ExpungeError(f"{OPTION}: {path}: {_some(bad, '; ')}; data/split/samples.csv lists the ids")
    return line_of


def _some(found: Sequence[str], between: str) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{between.join(found[:SHOWN])}{more}"
