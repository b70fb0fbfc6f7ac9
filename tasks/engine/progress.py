"""Progress of long work: a bar on a terminal, nothing in a log (the epochs' lines are there)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

from tasks.core.processes import place

T = TypeVar("T")


def bar(items: Iterable[T], *, total: int, title: str) -> Iterable[T]:
    """Wrap an iterable in a progress bar on standard error, if that is a terminal; the main process's."""
    hidden = not (sys.stderr.isatty() and place().is_main)
    return tqdm(items, total=total, desc=title, leave=False, disable=hidden, mininterval=0.5)
