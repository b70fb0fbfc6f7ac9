"""The chain of events: each is sealed to the one before it, so that no change of the past goes unseen.

An event holds the SHA-256 of its own content and of its predecessor's, so whoever changes, removes or
inserts one must rewrite all that follow, and then the head no longer is the one that was anchored
outside (in Git commits, MLflow tags, certificates, the mark beside the keys).

Nothing here needs a database: a stranger who checks a certificate runs this too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.core.errors import ExpungeError
from tasks.requests import events
from tasks.requests.events import Fact

F = TypeVar("F", bound=Fact)

GENESIS = "0" * 64
"""What stands for the predecessor of the first event."""

HEX = frozenset("0123456789abcdef")


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """``2026-05-01T12:00:00.000000Z``: UTC, fixed width, so that text sorts as time."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(value: object) -> str:
    """JSON in the one form that is hashed: keys sorted, no blanks, no NaN, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Event:
    """One line of the ledger.

    Attributes
    ----------
    seq
        1, 2, 3, ... without a gap.
    at
        When, by the writer's clock: :func:`stamp`.
    kind
        A key of :data:`tasks.requests.events.KINDS`.
    request
        Its subject: the request, batch or standing hold that it is about, if any.
    text
        What there is to tell, as the canonical JSON of an object.
    previous, hash
        Digests of the event before it and of this one: SHA-256 of the canonical JSON of all other fields.
    """

    seq: int
    at: str
    kind: str
    request: str | None
    text: str
    previous: str
    hash: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Event:
        """Return the event that :meth:`as_json` told."""
        fields = {name: value[name] for name in ("seq", "at", "kind", "request", "previous", "hash")}
        return cls(text=canonical(value["body"]), **fields)

    @cached_property
    def raw(self) -> Mapping[str, Any]:
        """Its content as it was written, for the chain and for ``--json``; whoever decides reads ``fact``."""
        try:
            value = json.loads(self.text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ExpungeError(f"ledger: event {self.seq} was changed: its body is no JSON object")
        return value

    @cached_property
    def fact(self) -> Fact:
        """What it tells.

        Raises
        ------
        ExpungeError
            If its content is none of its kind's.
        """
        try:
            return events.read(self.kind, self.raw)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "its content"
            raise ExpungeError(f"ledger: event {self.seq} is no {self.kind!r}: {where} is wrong") from None

    def sealed(self) -> Event:
        """Return the event with the hash that its content has."""
        return Event(self.seq, self.at, self.kind, self.request, self.text, self.previous, self.digest())

    def digest(self) -> str:
        """SHA-256 over everything but the hash itself."""
        about = "null" if self.request is None else quoted(self.request)
        content = f'[{self.seq},{quoted(self.at)},{quoted(self.kind)},{about},{self.text},"{self.previous}"]'
        return hashlib.sha256(content.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """All fields, for ``--json`` and certificates."""
        return {
            "seq": self.seq, "at": self.at, "kind": self.kind, "request": self.request,
            "body": dict(self.raw), "previous": self.previous, "hash": self.hash,
        }  # fmt: skip


def latest(entries: Sequence[Event], fact: type[F]) -> F | None:
    """Return what the last event of a kind tells; ``entries`` are in their order."""
    event = latest_event(entries, fact)
    return None if event is None else event.fact  # type: ignore[return-value]


def latest_event(entries: Sequence[Event], fact: type[Fact]) -> Event | None:
    """Return the last event of a kind."""
    return next((event for event in reversed(entries) if event.kind == fact.kind), None)


@dataclass(frozen=True, slots=True)
class Head:
    """The last event's number and hash; number 0 and :data:`GENESIS` before the first."""

    seq: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, anchor: str) -> Head:
        """Read ``<seq>:<hash>`` as it stands in a commit trailer or a tag."""
        seq, _, digest = anchor.partition(":")
        if not (
            seq.isascii() and seq.isdigit() and len(seq) < 19 and len(digest) == 64 and set(digest) <= HEX
        ):
            raise ExpungeError(f"{anchor[:100]!r} is no anchor; one looks like 12:<64 hex digits>")
        return cls(int(seq), digest)


@dataclass(frozen=True, slots=True)
class Anchor:
    """A head that was written down outside the ledger, and where: ``commit 1a2b…``, ``--anchor``."""

    head: Head
    source: str


def check_chain(entries: Iterable[Event], anchors: Iterable[Anchor] = (), start: Head | None = None) -> Head:
    """Prove that events form an unbroken chain on which every anchor lies; return its head.

    Parameters
    ----------
    entries
        Events, oldest first.
    anchors
        Heads that were written down outside.
    start
        The event before the first of ``entries``, if these are not all.

    Raises
    ------
    ExpungeError
        Naming the first event that is wrong, the anchors that contradict each other, or the one that the
        chain does not pass through.
    """
    start = head = start or Head()
    wanted: dict[int, Anchor] = {}
    for anchor in anchors:
        known = wanted.setdefault(anchor.head.seq, anchor)
        if known.head.hash != anchor.head.hash:
            raise ExpungeError(
                f"ledger: two anchors of event {anchor.head.seq} contradict each other: {known.source} and "
                f"{anchor.source}; one of them is forged, or of another ledger"
            )
    for entry in entries:
        if entry.seq != head.seq + 1:
            raise ExpungeError(
                f"ledger: event {head.seq + 1} is missing; event {entry.seq} follows {head.seq}"
            )
        if entry.previous != head.hash:
            raise ExpungeError(
                f"ledger: event {entry.seq} was not written after event {head.seq} as it is now"
            )
        if entry.hash != entry.digest():
            raise ExpungeError(f"ledger: event {entry.seq} was changed: its content has another hash")
        head = Head(entry.seq, entry.hash)
        anchored = wanted.pop(head.seq, None)
        if anchored and anchored.head.hash != head.hash:
            raise ExpungeError(
                f"ledger: event {head.seq} is not the one that was anchored ({anchored.source}); "
                "it was rewritten"
            )
    if lost := sorted(seq for seq in wanted if seq > head.seq):
        source = wanted[lost[0]].source
        raise ExpungeError(
            f"ledger: event {lost[0]} was anchored ({source}), but the ledger ends at {head.seq}; "
            "restore the ledger from its backup"
        )
    at_start = wanted.get(start.seq)
    if at_start and at_start.head.hash != start.hash:
        raise ExpungeError(f"ledger: event {start.seq} is not the one that was anchored ({at_start.source})")
    return head
