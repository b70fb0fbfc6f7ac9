"""An excerpt of the ledger: the events of one request, and whether they are as they were written.

A certificate holds them, so whoever has its file checks them with what stands here: no database, no
repository. An event whose content is not told (because it is not the request's alone) still has its number,
its hash and its predecessor's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tasks.core.errors import ExpungeError

GENESIS = "0" * 64
"""What stands for the predecessor of the first event."""


class Anchored(Protocol):
    """The number and hash of an event as they were written down outside of the ledger."""

    @property
    def seq(self) -> int:
        """The event's number."""

    @property
    def hash(self) -> str:
        """The event's hash."""


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event of the ledger.

    Attributes
    ----------
    seq, at, kind
        Its number, its time and what it is.
    request
        The request that it is about.
    body
        What it tells, as the ledger keeps it; ``None`` where that is not told.
    previous, hash
        Digests of the event before it and of this one: SHA-256 of the canonical JSON of all other fields.
    """

    seq: int
    at: str
    kind: str
    request: str | None
    body: Mapping[str, Any] | None
    previous: str
    hash: str

    def digest(self) -> str:
        """SHA-256 over everything but the hash itself."""
        content = [self.seq, self.at, self.kind, self.request, self.body, self.previous]
        return hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(value: object) -> str:
    """JSON in the one form that is hashed: keys sorted, no blanks, no NaN, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check_hashes(events: Sequence[EventRecord]) -> str:
    """Check that every event whose content is told has that content's hash."""
    told = [event for event in events if event.body is not None]
    for event in told:
        if event.hash != event.digest():
            raise ExpungeError(f"event {event.seq} was changed: its content has another hash")
    rest = f"; the content of {len(events) - len(told)} more is not told" if len(told) < len(events) else ""
    return f"{len(told)} event(s) have the hashes of their contents{rest}"


def check_order(events: Sequence[EventRecord]) -> str:
    """Check that events ascend, and that neighbours in the ledger are linked."""
    _known(events)
    return "events ascend, and neighbours in the ledger are linked"


def check_anchors(events: Sequence[EventRecord], anchors: Iterable[Anchored]) -> str:
    """Check that no event is another than the one that was anchored."""
    known = _known(events)
    covered = total = 0
    for anchor in anchors:
        total += 1
        if anchor.seq in known:
            covered += 1
            if known[anchor.seq] != anchor.hash:
                raise ExpungeError(f"event {anchor.seq} is not the one that was anchored")
    if not covered:
        return f"nothing to compare: none of {total} anchor(s) is of an event that the certificate holds"
    return f"{covered} of {total} anchor(s) are of events that the certificate holds, and agree with them"


def _known(events: Iterable[EventRecord]) -> dict[int, str]:
    """Hashes by number of all events that the given ones tell of: their own and their predecessors'.

    Raises
    ------
    ExpungeError
        If they do not ascend, or one does not follow its neighbour.
    """
    known = {0: GENESIS}
    last = 0
    for event in events:
        if type(event.seq) is not int or not 0 < event.seq < 2**63:
            raise ExpungeError("an event's number is no whole number above 0")
        if event.seq <= last:
            raise ExpungeError(f"event {event.seq} stands after event {last}")
        if known.setdefault(event.seq - 1, event.previous) != event.previous:
            raise ExpungeError(f"event {event.seq} was not written after event {event.seq - 1} as it is here")
        last = event.seq
        known[last] = event.hash
    return known
