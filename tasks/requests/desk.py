"""The desk: the few things that can be done with a request.

The command line, the inbox and the Prefect deployments all come here, so a request is treated the same
whichever way it arrives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests import holds, intake, pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import stamp
from tasks.requests.deadlines import Rules, extended
from tasks.requests.events import Fact
from tasks.requests.holds import StandingHold
from tasks.requests.intake import Receipt
from tasks.requests.ledger import Writer
from tasks.requests.record import Record
from tasks.requests.request import ID, Request, new_id
from tasks.requests.standing import Row
from tasks.requests.states import NEXT, Status

__all__ = ["ID", "Desk", "Receipt", "StandingHold", "new_id", "urgency"]

NEEDS_REASON = (facts.Refused, facts.Withdrawn, facts.Extended, facts.Held, facts.Released, facts.Unkeyed)
"""Decisions that must be explained."""


@dataclass(frozen=True, slots=True)
class Desk(Record):
    """Takes requests and decisions, and answers questions about them."""

    # intake

    def submit(
        self,
        content: bytes,
        name: str,
        catalogue: Catalogue | None,
        *,
        channel: str,
        request: str | None = None,
        flow_run: str | None = None,
    ) -> Receipt:
        """Take a submission, whatever it holds, and record what became of it.

        Parameters
        ----------
        content, name
            The file's bytes and its name, ``*.json`` or ``*.csv``.
        catalogue
            The samples that there are; without it the request is received, and resolved later.
        channel
            The way it came: ``cli``, ``inbox`` or ``prefect``.
        request
            Its id, from :func:`new_id`, if it was given one before; a second call with the same id
            does nothing but return what the first one led to.
        flow_run
            Prefect's id of the run that brought it.

        Returns
        -------
        Receipt
            Of a request that is ``validated``, ``behind``, ``duplicate``, ``rejected`` or ``received``.

        Raises
        ------
        ExpungeError
            If ``request`` is no id.
        """
        return intake.submit(
            self, content, name, catalogue, channel=channel, request=request, flow_run=flow_run
        )

    def foresee(self, catalogue: Catalogue | None, submissions: Iterable[tuple[bytes, str]]) -> None:
        """Prepare for many submissions, bytes and a name each, that are submitted with the same catalogue.

        What takes a pass over all images is done once for all of them.
        """
        intake.foresee(self, catalogue, submissions)

    def resolve(self, catalogue: Catalogue) -> Iterator[Receipt]:
        """Resolve the requests that were received while the data could not be read."""
        return intake.resolve(self, catalogue)

    # decisions

    def decide(self, decision: Fact, request: str) -> Request:
        """Record a person's decision, such as ``Approved(by="dpo", reason="…")``.

        Raises
        ------
        ExpungeError
            If the request's state does not allow it, or a reason is needed and missing.
        """
        assert isinstance(decision, facts.Decision)  # noqa: S101
        reason = " ".join((decision.reason or "").split())
        if isinstance(decision, NEEDS_REASON) and not reason:
            raise ExpungeError(
                f"request {request}: give a reason; the record must say why it was {decision.kind}"
            )
        decision = decision.model_copy(update={"reason": reason or None})
        with self.writing() as writer:
            match decision:
                case facts.Held():
                    holds.hold(writer, decision, request)
                case facts.Released():
                    holds.release(writer, decision, request)
                case facts.Extended():
                    due_at = self._extended(writer, request)
                    writer.append(decision.model_copy(update={"due_at": due_at}), request)
                case _:
                    writer.append(decision, request)
            if isinstance(decision, facts.Refused | facts.Withdrawn):
                self._advance(writer, request)
        if isinstance(decision, facts.Refused | facts.Withdrawn):
            pending.drop(request)
            self.keys.forget_names(request)
        return self.show(request)

    def _extended(self, writer: Writer, request: str) -> str:
        found = next((event.fact for event in writer.events(request)), None)
        if not isinstance(found, facts.Received) or found.received_at is None:
            raise ExpungeError(f"request {request!r} is not in the ledger, or has no due date")
        settings, received = self.settings, datetime.fromisoformat(found.received_at)
        months = (settings.due_months, settings.extension_months)
        return stamp(extended(received, *months, self.rules))

    def _advance(self, writer: Writer, first: str) -> None:
        """Let the first of those that wait behind a request take its place before the others."""
        behind = [row for row in writer.rows(only_behind=True) if row.first == first]
        for place, row in enumerate(behind):
            following = facts.Behind(first=behind[0].request) if place else facts.Advanced(first=first)
            writer.append(following, row.request)

    def destroy_key(self, request: str, *, by: str, reason: str) -> Request:
        """Destroy the key of a request that has ended: nobody can tell any more which samples it named.

        The event comes first: a key that is said to be gone and is not can be destroyed again.

        Raises
        ------
        ExpungeError
            If the request has not ended, or no reason is given.
        """
        if "unkeyed" not in self.show(request).state.seen:
            self.decide(facts.Unkeyed(by=by, reason=reason), request)
        self.keys.destroy(request)
        return self.show(request)

    # standing holds

    def place_hold(
        self, *, by: str, reason: str, requester: str | None = None, ids: Sequence[str] = ()
    ) -> str:
        """Hold whatever a requester asks for, or whatever names these samples, now and later.

        Returns
        -------
        str
            The hold's id, by which it is lifted.

        Raises
        ------
        ExpungeError
            If no reason is given, or neither requester nor samples.
        """
        return holds.place(self, by=by, reason=reason, requester=requester, ids=ids)

    def lift_hold(self, hold: str, *, by: str, reason: str) -> None:
        """End a standing hold, and release the requests that it alone held.

        Raises
        ------
        ExpungeError
            If there is no such hold, or no reason is given.
        """
        holds.lift(self, hold, by=by, reason=reason)

    def holds(self, writer: Writer | None = None) -> list[StandingHold]:
        """Return the standing holds that have not been lifted."""
        return holds.standing(self, writer)

    def held_samples(self, ids: Collection[str]) -> Iterator[tuple[str, set[str]]]:
        """Name every hold that stands and which of some ids it protects: all, where nobody can tell."""
        return holds.held_samples(self, ids)

    def lost_holds(self) -> list[str]:
        """Return the holds of which nobody can tell any more what they protect."""
        return holds.lost(self)

    # questions

    def ready(self) -> list[Row]:
        """Return requests that the next batch may take."""
        wanted = {Status.APPROVED, Status.VALIDATED}
        return [
            row
            for row in self.rows(only_open=True)
            if row.status in wanted and not row.held and not self.waits_for_approval(row)
        ]

    def waits_for_approval(self, row: Row) -> bool:
        """Whether a request goes on only if a person approves of it."""
        asks = self.settings.approval or (self.settings.shared == "ask" and bool(row.shared))
        return asks and row.status is Status.VALIDATED

    def waiting_for_approval(self) -> list[Row]:
        """Return the requests that a person is to be asked about."""
        return [row for row in self.rows(only_open=True) if self.waits_for_approval(row) and not row.held]

    @property
    def rules(self) -> Rules:
        """How days are counted, and in which zone."""
        return Rules.of(self.settings)

    def day(self, at: str | None) -> str:
        """The day on which a time of the ledger lies, where days are counted; empty if there is none."""
        return str(self.rules.day(datetime.fromisoformat(at))) if at else ""

    def next_of(self, row: Row) -> str:
        """Say what happens next with a request, or what it waits for."""
        if row.held:
            return "on legal hold until that is lifted: expunge holds, expunge release"
        if self.waits_for_approval(row):
            why = f", since {row.shared} sample(s) show other people, too" if row.shared else ""
            return f"a person must decide{why}: expunge approve {row.request}, or refuse"
        return NEXT.get(row.status, "nothing").format(first=row.first)


def urgency(row: Row, at: datetime, at_risk: timedelta) -> str:
    """``overdue``, ``at risk`` or ``on time``; ``-`` once it has ended."""
    if not row.open or row.due_at is None:
        return "-"
    if row.due_at < stamp(at):
        return "overdue"
    return "at risk" if row.due_at < stamp(at + at_risk) else "on time"
