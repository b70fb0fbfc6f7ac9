"""What went wrong in a batch, in words: kept in the checkout, not in the record, until the batch is purged.

The text of an error may name a sample, so it stands where the purge can delete it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tasks.core.files import STATE

FOLDER = STATE / "log"


def path_of(batch: str) -> Path:
    """Where the texts of a batch stand."""
    return FOLDER / f"{batch}.log"


def write(batch: str, text: str) -> None:
    """Append a text, with the time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with path_of(batch).open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text.rstrip()}\n")


def last(batch: str) -> str:
    """Return the last text of a batch; empty if there is none."""
    path = path_of(batch)
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def delete(batch: str) -> None:
    """Delete the texts of a batch."""
    path_of(batch).unlink(missing_ok=True)
