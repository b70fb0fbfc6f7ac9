"""What small batches tell of the cohort, until it is of so many members that only sums go into the record.

The placements of a handful of members are figures of persons. So those of a small batch wait beside the
keys, as sums, and once promoted batches have twenty members together, one event tells their sum and the
single ones are deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.figures import SHARED
from tasks.core.files import write_whole
from tasks.metrics.pooled import Moments
from tasks.requests import events as facts
from tasks.requests.desk import Desk

Waiting = dict[str, Mapping[str, float]]


def keep(desk: Desk, batch: str, moments: Moments) -> None:
    """Keep what a small batch tells; a later attempt of the same batch replaces it."""
    if moments.count:
        _write(desk, _read(desk) | {batch: moments.as_sums()})


def pool(desk: Desk) -> None:
    """Record the sum over small batches that were promoted, once these have enough members together."""
    waiting = _read(desk)
    if not waiting:
        return
    promoted = {event.request for event in desk.ledger.events(kinds=(facts.Promotion.kind,))}
    ready = {batch: sums for batch, sums in waiting.items() if batch in promoted}
    merged = Moments.merged([Moments.of_sums(sums) for sums in ready.values()])
    if merged is None or merged.count < SHARED:
        return
    of = hashlib.sha256("\n".join(sorted(ready)).encode()).hexdigest()
    last = desk.ledger.last((facts.CohortPooled.kind,))
    if last is None or last.raw.get("of") != of:  # else a process died before it could delete them
        desk.record(facts.CohortPooled(pooled=merged.as_sums(), batches=len(ready), of=of))
    _write(desk, {batch: sums for batch, sums in waiting.items() if batch not in ready})


def _path(desk: Desk) -> Path:
    return desk.keys.folder / f"cohort-{(desk.ledger.genesis() or '')[:16]}.json"


def _read(desk: Desk) -> Waiting:
    path = _path(desk)
    if not path.exists():
        return {}
    try:
        found: Waiting = json.loads(path.read_text(encoding="utf-8"))
        return {batch: Moments.of_sums(sums).as_sums() for batch, sums in found.items()}
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ExpungeError(
            f"{path} is damaged; restore it from the backup of the keys, or delete it"
        ) from None


def _write(desk: Desk, waiting: Mapping[str, Mapping[str, float]]) -> None:
    with write_whole(_path(desk), private=True) as file:
        file.write(json.dumps(waiting).encode())
