"""The life of a request: its states, and what leads from one to the next.

This table is the only place that decides it. Events are what the ledger keeps; the state of a request is
what its events lead to, and is stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tasks.core.errors import ExpungeError


class Status(StrEnum):
    """Where a request stands."""

    RECEIVED = "received"
    VALIDATED = "validated"
    APPROVED = "approved"
    BATCHED = "batched"
    RUNNING = "running"
    AUDITED = "audited"
    PROMOTED = "promoted"
    PURGED = "purged"
    FAILED = "failed"
    CLOSED = "closed"
    REJECTED = "rejected"
    REFUSED = "refused"
    DUPLICATE = "duplicate"


S = Status

NOTHING_LEFT = "nothing left"
"""Stands for a method where other batches have erased every sample."""

ENDED = frozenset({S.CLOSED, S.REJECTED, S.REFUSED, S.DUPLICATE})
"""Nothing more happens to a request that stands here."""

NEXT = {
    S.RECEIVED: "it is being checked",
    S.VALIDATED: "approve or refuse it, if requests.approval is on; else it waits for the next batch",
    S.APPROVED: "it waits for the next batch",
    S.BATCHED: "its batch waits to run",
    S.RUNNING: "its batch is being unlearned and audited",
    S.AUDITED: "the gate decides on promotion",
    S.PROMOTED: "its samples are to be purged",
    S.PURGED: "its certificate is to be written",
    S.FAILED: "a person must look: expunge show",
}
"""What happens to an open request next, in words."""

OPEN = frozenset(Status) - ENDED
WAITING = frozenset({S.RECEIVED, S.VALIDATED, S.APPROVED, S.FAILED})
"""Nothing has been begun that could not be left undone."""


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
    """

    sources: frozenset[Status]
    target: Status | None
    on_hold: bool = False
    once: bool = False
    back: bool = False


def _from(*sources: Status) -> frozenset[Status]:
    return frozenset(sources)


TRANSITIONS = {
    # intake
    "received": Transition(_from(), S.RECEIVED),
    "rejected": Transition(_from(S.RECEIVED), S.REJECTED),
    "duplicate": Transition(_from(S.RECEIVED), S.DUPLICATE),
    "validated": Transition(_from(S.RECEIVED), S.VALIDATED),
    # decisions of persons
    "approved": Transition(_from(S.VALIDATED), S.APPROVED),
    "refused": Transition(WAITING, S.REFUSED, on_hold=True),
    "extended": Transition(OPEN, None, on_hold=True, once=True),
    "held": Transition(OPEN, None),
    "released": Transition(OPEN, None, on_hold=True),
    # processing
    "covered": Transition(OPEN, None, on_hold=True),
    "batched": Transition(_from(S.VALIDATED, S.APPROVED), S.BATCHED),
    "started": Transition(_from(S.BATCHED, S.AUDITED), S.RUNNING, on_hold=True),
    "audited": Transition(_from(S.RUNNING), S.AUDITED, on_hold=True),
    "promoted": Transition(_from(S.AUDITED), S.PROMOTED, on_hold=True),
    "purged": Transition(_from(S.PROMOTED), S.PURGED),
    "closed": Transition(_from(S.PURGED), S.CLOSED, on_hold=True),
    "failed": Transition(
        _from(S.BATCHED, S.RUNNING, S.AUDITED, S.PROMOTED, S.PURGED), S.FAILED, on_hold=True
    ),
    "retried": Transition(_from(S.FAILED), None, back=True),
    # afterwards
    "unkeyed": Transition(ENDED, None, once=True),
}
"""Every kind of event in a request's life. A second ``started`` is the next method of the chain; ``covered``
says that another batch erased some of its samples. A hold stops what cannot be undone: the purge. It also
keeps a request out of the next batch."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a request stands, and which kinds of events led there.

    ``before`` is the status in which a request failed.
    """

    status: Status | None = None
    held: bool = False
    before: Status | None = None
    seen: frozenset[str] = frozenset()

    def after(self, kind: str) -> State:
        """Return the state that an event of this kind leads to.

        Raises
        ------
        ExpungeError
            If the event may not happen now; the message is a clause without the request's name.
        """
        transition = TRANSITIONS[kind]
        if self.status is None and transition.sources:
            raise ExpungeError("is not in the ledger")
        if self.status is not None and self.status not in transition.sources:
            raise ExpungeError(f"is {self.status}; {kind!r} can happen only to one that is {_sources(kind)}")
        if self.held and not transition.on_hold:
            raise ExpungeError(
                "is on legal hold" + ("" if kind == "held" else f"; {kind!r} waits for its release")
            )
        if kind == "released" and not self.held:
            raise ExpungeError("is not on hold")
        if transition.once and kind in self.seen:
            raise ExpungeError(f"has been {kind} before; that is possible once")
        held = kind == "held" or (self.held and kind != "released")
        target = self.before if transition.back else transition.target or self.status
        before = self.status if target is Status.FAILED and self.status is not target else self.before
        return State(target, held, before, self.seen | {kind})


def state_of(kinds: Iterable[str]) -> State:
    """Follow the events of one request, oldest first."""
    state = State()
    for kind in kinds:
        state = state.after(kind)
    return state


def _sources(kind: str) -> str:
    sources = TRANSITIONS[kind].sources
    return ", ".join(status for status in Status if status in sources) or "new"
