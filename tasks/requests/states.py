"""The life of a request: its states, and what leads from one to the next.

Which event may happen in which status, and where it leads, is said by each event's own class
(:mod:`tasks.requests.events`). Events are what the ledger keeps; the state of a request is what its events
lead to. The table beside the events that lists states (:mod:`tasks.requests.standing`) is derived from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tasks.core.errors import ExpungeError


class Status(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    VALIDATED = "validated"
    BEHIND = "behind"
    APPROVED = "approved"
    BATCHED = "batched"
    RUNNING = "running"
    AUDITED = "audited"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    PURGING = "purging"
    PURGED = "purged"
    FAILED = "failed"
    CLOSED = "closed"
    REJECTED = "rejected"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    DUPLICATE = "duplicate"


S = Status

ENDED = frozenset({S.CLOSED, S.REJECTED, S.REFUSED, S.WITHDRAWN, S.DUPLICATE})
"""Nothing more happens to a request that stands here."""

OPEN = frozenset(Status) - ENDED

UNDONE = frozenset({S.RECEIVED, S.VALIDATED, S.BEHIND, S.APPROVED, S.BATCHED, S.RUNNING, S.AUDITED})
"""Nothing has happened yet that could not be left undone: the model in production is as it was."""

PURGES = frozenset({S.PURGING, S.PURGED})
"""Its samples are leaving the data and the stores, or have left: nothing can be held any more."""

FRUITLESS = frozenset({S.REJECTED, S.REFUSED, S.WITHDRAWN})
"""A request that ended so has erased nothing, and does not make a later one a duplicate."""

NEXT = {
    S.RECEIVED: (
        "expunge process resolves it once data/split can be read, and no earlier request is still erasing "
        "what it names"
    ),
    S.VALIDATED: "it waits for the next batch",
    S.BEHIND: "it waits for {first}, which names the same samples, and takes its place if that is refused",
    S.APPROVED: "it waits for the next batch",
    S.BATCHED: "its batch waits to run",
    S.RUNNING: "its batch is being unlearned and audited",
    S.AUDITED: "the gate decides on promotion",
    S.PROMOTING: "its batch goes into production",
    S.PROMOTED: "its samples are to be purged",
    S.PURGING: "its samples are being purged",
    S.PURGED: "its certificate is to be written",
    S.FAILED: "a person must look: expunge show tells why; then expunge retry, refuse or withdraw",
}
"""What happens to an open request next, in words; ``first`` is the request that it waits for."""


class TransitionError(ExpungeError):
    """An event that may not happen where the request stands; the message is a whole sentence."""

    def __init__(self, request: str, clause: str) -> None:
        super().__init__(f"request {request} {clause}")


@dataclass(frozen=True, slots=True)
class Transition:
    """What one kind of event does.

    Attributes
    ----------
    sources
        Statuses in which it may happen; empty for the event that opens a request.
    target
        Status that it leads to; ``None`` leaves the status as it is.
    on_hold
        Whether it may happen to a request on legal hold.
    once
        Whether it may happen to a request just one time.
    back
        Whether it leads back to where the request stood before it failed.
    undone
        Whether it may happen only while the model in production is as it was: to a request that failed,
        only if it failed before its batch was promoted.
    unpurged
        Whether it may happen to a request that failed only if it failed before its purge began.
    """

    sources: frozenset[Status]
    target: Status | None
    on_hold: bool = False
    once: bool = False
    back: bool = False
    undone: bool = False
    unpurged: bool = False


def after(*sources: Status) -> frozenset[Status]:
    """Return the statuses that an event may follow."""
    return frozenset(sources)


@dataclass(frozen=True, slots=True)
class State:
    """Where a request stands, and which kinds of events led there.

    ``before`` is the status in which a request failed.
    """

    status: Status | None = None
    held: bool = False
    before: Status | None = None
    seen: frozenset[str] = frozenset()

    def follow(self, kind: str, transitions: Mapping[str, Transition], request: str) -> State:
        """Return the state that an event of this kind leads to.

        Raises
        ------
        TransitionError
            If the event may not happen now.
        """
        transition = transitions[kind]
        if self.status is None and transition.sources:
            raise TransitionError(repr(request), "is not in the ledger; expunge list shows those that are")
        if self.status is not None and self.status not in transition.sources:
            sources = ", ".join(status for status in Status if status in transition.sources) or "new"
            raise TransitionError(
                request, f"is {self.status}; {kind!r} can happen only to one that is {sources}"
            )
        if transition.undone and self.status is Status.FAILED and self.before not in UNDONE:
            raise TransitionError(
                request,
                f"failed after its batch was promoted; {kind!r} would leave copies that nobody purges: "
                "expunge retry",
            )
        if transition.unpurged and self.status is Status.FAILED and self.before in PURGES:
            raise TransitionError(
                request, f"failed after its purge had begun; {kind!r} comes too late: expunge retry"
            )
        if self.held and not transition.on_hold:
            raise TransitionError(request, f"is on legal hold; {kind!r} waits for its release")
        if kind == "released" and not self.held:
            raise TransitionError(request, "is not on hold")
        if transition.once and kind in self.seen:
            raise TransitionError(request, f"has been {kind} before; that is possible once")
        return self.after(kind, transitions)

    def after(self, kind: str, transitions: Mapping[str, Transition]) -> State:
        """Return the state that an event of this kind has led to, whatever allowed it when it happened."""
        transition = transitions[kind]
        held = kind == "held" or (self.held and kind != "released")
        target = (self.before if transition.back else transition.target) or self.status
        before = self.status if target is Status.FAILED and self.status is not target else self.before
        return State(target, held, before, self.seen | {kind})


def state_of(kinds: Iterable[str], transitions: Mapping[str, Transition], request: str = "") -> State:
    """Follow the events of one request, oldest first."""
    state = State()
    for kind in kinds:
        state = state.follow(kind, transitions, request)
    return state


def history(kinds: Iterable[str], transitions: Mapping[str, Transition]) -> State:
    """Return where a request's events in the ledger have led; an earlier version may have allowed others."""
    state = State()
    for kind in kinds:
        state = state.after(kind, transitions)
    return state
