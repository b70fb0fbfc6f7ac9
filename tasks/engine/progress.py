"""Progress of long work: a bar on a terminal, nothing in a log (the epochs' lines are there)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(items: Iterable[T], *, total: int, title: str) -> Iterable[T]:
    """Wrap an iterable in a progress bar on standard error, if that is a terminal."""
    return tqdm(items, total=total, desc=title, leave=False, disable=not sys.stderr.isatty(), mininterval=0.5)
