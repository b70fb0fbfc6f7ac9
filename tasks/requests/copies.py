"""Other samples that show the same picture as one that is asked for, or are near by the model's features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.samples.table import COPIES, SPLIT

SHOWN = 5
"""How many are named in words; JSON names all."""

UNKNOWN = (
    f"other samples that show the same picture cannot be told: {SPLIT / COPIES} is missing; "
    "run the stage that writes it: dvc repro split"
)


@dataclass(frozen=True, slots=True)
class Copies:
    """Ids of the other samples that show the same pictures as some that are asked for.

    ``same``: the same pixels. ``alike``: nearly the same. ``tests``: test samples of either kind.
    ``features``, ``test_features``: those that only the features of the model in production tell, and test
    samples of that kind; see :mod:`tasks.requests.neighbours`.
    """

    same: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    test_features: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.same, *self.alike, *self.tests, *self.features, *self.test_features)

    @property
    def by_features(self) -> int:
        """How many of them only the model's features tell."""
        return len(self.features) + len(self.test_features)

    def told(self) -> str:
        """Say in one line how many there are, without names."""
        showing = len(self) - self.by_features
        kinds = [f"{showing} other sample(s) show the same picture"] if showing else []
        if self.by_features:
            kinds.append(f"{self.by_features} other sample(s) are near by the model's features")
        return f"{' and '.join(kinds)} and stay"

    def lines(self) -> Iterator[str]:
        """Name them, and say what to do; for whoever takes the request, never for the record."""
        if not self:
            return
        yield f"{self.told()}:"
        named = [
            *(f"{name}: the same pixels" for name in self.same),
            *(f"{name}: nearly the same" for name in self.alike),
            *(f"{name}: a test sample" for name in self.tests),
            *(f"{name}: near by the model's features" for name in self.features),
            *(f"{name}: near by the model's features, a test sample" for name in self.test_features),
        ]
        yield from (f"  {line}" for line in named[:SHOWN])
        if len(named) > SHOWN:
            yield f"  and {len(named) - SHOWN} more; --json names all"
        yield "  to have them erased, too, submit a request that names them, or has near_copies: include"
