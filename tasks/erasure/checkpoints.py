"""Checkpoints of trainings: they hold what a model learned, and no search can tell of whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.files import STATE

EXPERIMENTS = Path(".dvc/tmp/exps")


def checkouts(root: Path) -> list[Path]:
    """Return the checkout, and the temporary ones in which DVC runs experiments."""
    found = [root]
    with suppress(OSError):
        found += sorted(path for path in (root / EXPERIMENTS).iterdir() if (path / STATE).is_dir())
    return found


def checkpoints(root: Path) -> Iterator[tuple[Path, bool]]:
    """Yield every checkpoint, and whether its training is at work."""
    for checkout in checkouts(root):
        for path in sorted((checkout / STATE / "checkpoints").glob("*")):
            yield path, _at_work(checkout, path.name.partition(".")[0])


def at_work(checkout: Path) -> bool:
    """Whether any stage is at work in a checkout."""
    locks = (checkout / STATE / "locks").glob("data-*.lock")
    return any(_is_held(path) for path in locks)


def _at_work(checkout: Path, stage: str) -> bool:
    path = checkout / STATE / "locks" / f"data-{stage}.lock"
    return path.exists() and _is_held(path)


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
