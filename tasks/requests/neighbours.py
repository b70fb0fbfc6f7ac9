"""Which samples the model in production takes for nearly the same picture as one that is asked for.

The setting ``requests.near_features`` switches it on. What is compared are the features that the last layer
of the model in production is given (:mod:`tasks.engine.features`). They are computed when a request is taken
and dropped with the comparison: no file holds them, so there is nothing of them to purge. Only neighbours of
what is asked for are told, not theirs.

Neither torch nor numpy is imported unless the setting is on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.core.errors import ExpungeError
from tasks.core.params import load
from tasks.requests.events import Base
from tasks.requests.production import BASE, in_production
from tasks.samples.table import SPLIT

if TYPE_CHECKING:
    from torch import nn

    from tasks.requests.record import Record
    from tasks.samples.manifest import SplitSamples
    from tasks.samples.mapped import Images

SETTING = "requests.near_features"

FILES = ("weights.safetensors", "weights.json")

NO_MODEL = (
    f"{SETTING} cannot be followed yet, since no model is in production: copies are told by their pixels"
)

Names = frozenset[str]


@dataclass(frozen=True, slots=True)
class Near:
    """What is near by the model's features.

    Attributes
    ----------
    ids
        Ids of the other samples that are near to one that is asked for.
    untold
        Why that cannot be told, though the setting asks for it, in one line that names no sample.
    """

    ids: Names = frozenset()
    untold: str = ""


@dataclass(slots=True)
class Neighbours:
    """What has been found so far, of one catalogue and one model."""

    _found: dict[Names, Near] = field(default_factory=dict)
    _by: tuple[str, float] = ("", 0.0)
    """Weights and the smallest cosine by which it was found."""

    def of(self, record: Record, ids: Collection[str]) -> Near:
        """Return what is near to some samples; without the setting, nothing."""
        return self.look(record, [ids])[0]

    def look(self, record: Record, asked: Sequence[Collection[str]]) -> list[Near]:
        """Return what is near to each of several sets of samples: one pass over the images finds it for all.

        What has been found for a set is known the next time.
        """
        least, sets = record.settings.near_features, [frozenset(ids) for ids in asked]
        if least is None or not any(sets):
            return [Near() for _ in sets]
        base = in_production(record.ledger)
        if base is None:
            return [Near(untold=NO_MODEL) for _ in sets]
        if self._by != (base.weights, least):
            self._found, self._by = {frozenset(): Near()}, (base.weights, least)
        if wanted := [ids for ids in dict.fromkeys(sets) if ids not in self._found]:
            self._found |= zip(wanted, _near(wanted, base, least), strict=True)
        return [self._found[ids] for ids in sets]


def _near(asked: Sequence[Names], base: Base, least: float) -> Sequence[Near]:
    try:
        return [Near(ids) for ids in _found(asked, base, least)]
    except (ExpungeError, OSError, RuntimeError, MemoryError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        return [Near(untold=f"{SETTING} is not followed: {problem}")] * len(asked)


def _found(asked: Sequence[Names], base: Base, least: float) -> Iterator[Names]:
    import numpy as np

    from tasks.engine.features import near

    split = _split()
    model = _model(base, split.images)
    ids = split.samples.sample_ids
    row_of = {name: row for row, name in enumerate(ids)}
    rows = [np.array([row_of[name] for name in names if name in row_of], np.int64) for names in asked]
    found = near(model, split.images, rows, least)
    return (frozenset(ids[row] for row in rows.tolist()) for rows in found)


def _split() -> SplitSamples:
    from tasks.samples.manifest import load_samples

    try:
        return load_samples()
    except ExpungeError:  # whose text may quote the table of samples
        raise ExpungeError(f"{SPLIT} cannot be read; make it again: dvc repro split") from None


def _model(base: Base, images: Images) -> nn.Module:
    """Build the model in production where it computes.

    Raises
    ------
    ExpungeError
        If its weights are not there, or are of images of another size.
    """
    from tasks.engine import device, weights

    found = weights.load(BASE) if all((BASE / name).exists() for name in FILES) else None
    if found is None or found[1].sha256 != base.weights:
        raise ExpungeError(f"{BASE} does not hold the weights in production, {base.weights[:12]}…")
    model, info = found
    size = (info.channels, *info.size)
    if images.shape[1:] != size:
        takes, are = ("×".join(map(str, each)) for each in (size, images.shape[1:]))
        raise ExpungeError(f"the model in production takes images of {takes}, those in data/split are {are}")
    return model.to(device.choose(load().runtime))
