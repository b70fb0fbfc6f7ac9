"""The desk: the few things that can be done with a request.

The command line, the inbox and the Prefect deployments all come here, so a request is treated the same
whichever way it arrives.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dateutil.relativedelta import relativedelta

from tasks.core.errors import ExpungeError
from tasks.requests.catalogue import Catalogue, forms
from tasks.requests.keys import KeyStore, reference
from tasks.requests.ledger import Event, Ledger, Writer, latest, now, stamp
from tasks.requests.parsing import Parsed, parse
from tasks.requests.schema import Named, Problem, Submission, SubmissionError
from tasks.requests.settings import Settings
from tasks.requests.states import ENDED, NEXT, State, Status, state_of

SKEW = timedelta(minutes=5)
"""How far another machine's clock may run ahead of ours."""

NEEDS_REASON = frozenset({"refused", "extended", "held", "released", "unkeyed"})
"""Decisions that must be explained."""

FRUITLESS = frozenset({Status.REJECTED, Status.REFUSED, Status.DUPLICATE})
"""A request that ended so does not make a later one a duplicate."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as its events tell it."""

    id: str
    state: State
    events: tuple[Event, ...]

    @property
    def open(self) -> bool:
        """Whether anything is still to be done."""
        return self.state.status not in ENDED

    @property
    def due_at(self) -> str | None:
        """When it must be done: :func:`~tasks.requests.ledger.stamp`; ``None`` for one that was rejected."""
        due: str | None = self._latest("due_at")
        return due

    @property
    def received_at(self) -> str | None:
        """When it reached the controller; ``None`` for one that was rejected."""
        received: str | None = self._latest("received_at")
        return received

    @property
    def batch(self) -> str | None:
        """The batch that carries it out."""
        batched = latest(self.events, "batched")
        return None if batched is None else str(batched.body["batch"])

    @property
    def first(self) -> str | None:
        """The request that it duplicates."""
        first: str | None = self._latest("first")
        return first

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why it was rejected, without the values."""
        found: list[dict[str, Any]] = self._latest("problems") or []
        return tuple(Problem(**problem) for problem in found)

    @property
    def count(self) -> int | None:
        """Number of its samples."""
        samples = self._validated()
        return None if samples is None else len(samples)

    @property
    def remaining(self) -> frozenset[str]:
        """Keyed digests of the ids of its samples that no other batch has erased."""
        covered = {
            digest for event in self.events if event.kind == "covered" for digest in event.body["samples"]
        }
        return self.digests.get("id", frozenset()) - covered

    @property
    def content(self) -> list[dict[str, str]]:
        """Keyed digests of the content of its samples, from when they were erased."""
        audited = latest(self.events, "audited")
        covered = [event for event in self.events if event.kind == "covered"]
        known = [*covered, *([audited] if audited else [])]
        found = (entry for event in known for entry in event.body.get("content", ()))
        return sorted(found, key=lambda entry: entry["pixels"])

    @property
    def digests(self) -> Mapping[str, frozenset[str]]:
        """Keyed digests of its samples by kind of name."""
        samples = self._validated() or []
        kinds = {kind for sample in samples for kind in sample}
        return {kind: frozenset(sample[kind] for sample in samples if kind in sample) for kind in kinds}

    def urgency(self, at: datetime, at_risk: timedelta) -> str:
        """``overdue``, ``at risk`` or ``on time``; ``-`` once it has ended."""
        if not self.open or self.due_at is None:
            return "-"
        if self.due_at < stamp(at):
            return "overdue"
        return "at risk" if self.due_at < stamp(at + at_risk) else "on time"

    @property
    def next(self) -> str:
        """What happens next, in words."""
        if self.state.held:
            return "on legal hold until released"
        return NEXT.get(self.state.status, "nothing") if self.state.status else "nothing"

    def summary(self, at: datetime, at_risk: timedelta) -> dict[str, object]:
        """Return what a list shows of it."""
        received = self.events[0]
        return {
            "request": self.id,
            "status": str(self.state.status),
            "held": self.state.held,
            "received_at": received.body.get("received_at", received.at),
            "due_at": self.due_at,
            "urgency": self.urgency(at, at_risk),
            "samples": self.count,
            "ground": received.body.get("ground"),
            "requester": received.body.get("requester"),
            "first": self.first,
            "next": self.next,
        }

    def _validated(self) -> list[dict[str, str]] | None:
        validated = latest(self.events, "validated")
        return None if validated is None else validated.body["samples"]

    def _latest(self, key: str) -> Any:
        """Value of a key in the latest event that has it."""
        return next((event.body[key] for event in reversed(self.events) if key in event.body), None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a submission led to: the request, and, if it was rejected, why."""

    request: Request
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Desk:
    """Takes requests and decisions, and answers questions about them."""

    ledger: Ledger
    keys: KeyStore
    settings: Settings
    clock: Callable[[], datetime] = now

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str], root: Path) -> Desk:
        """Open the desk of the checkout at ``root``; EXPUNGE_LEDGER and EXPUNGE_KEYS go before settings.

        Raises
        ------
        ExpungeError
            If the ledger's URL is none, or the keys lie inside the repository.
        """
        ledger = Ledger(environ.get("EXPUNGE_LEDGER") or settings.ledger)
        return cls(ledger, KeyStore.of(settings, environ, root), settings)

    def submit(
        self,
        content: bytes,
        name: str,
        catalogue: Catalogue,
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
            The samples that there are.
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
            Of a request that is ``validated``, ``duplicate`` or ``rejected``.
        """
        request = request or new_id(self.clock())
        if known := self._find(request):
            return Receipt(known, known.problems)
        origin = {"channel": channel} | ({"flow_run": flow_run} if flow_run else {})
        try:
            parsed = parse(content, name)
            self._check_times(parsed)
        except SubmissionError as error:
            return self._reject(request, origin, error)
        key = self.keys.create(request) if not self.keys.exists(request) else self.keys.load(request)
        kept = False
        try:
            with self.ledger.writing() as writer:
                if writer.events(request):
                    kept = True
                else:
                    kept = self._record(writer, parsed, catalogue, request, origin, key)
        except SubmissionError as error:
            return self._reject(request, origin, error)
        finally:
            if not kept:
                self.keys.destroy(request)
        return Receipt(self.show(request))

    def decide(self, kind: str, request: str, *, by: str, reason: str = "") -> Request:
        """Record a person's decision.

        Parameters
        ----------
        kind
            ``approved``, ``refused``, ``held``, ``released``, ``extended`` or ``retried``.
        request
            Its id.
        by
            Who decides.
        reason
            Why; needed for all but approval and another try.

        Raises
        ------
        ExpungeError
            If the request's state does not allow it, or a reason is needed and missing.
        """
        reason = " ".join(reason.split())
        if kind in NEEDS_REASON and not reason:
            raise ExpungeError(f"request {request}: give a reason; the record must say why it was {kind}")
        with self.ledger.writing() as writer:
            body = {"by": by} | ({"reason": reason} if reason else {})
            if kind == "extended":
                body["due_at"] = self._extended(writer, request)
            writer.append(kind, request, **body)
        return self.show(request)

    def destroy_key(self, request: str, *, by: str, reason: str) -> Request:
        """Destroy the key of a request that has ended: nobody can tell any more which samples it named.

        The event comes first: a key that is said to be gone and is not can be destroyed again.

        Raises
        ------
        ExpungeError
            If the request has not ended, or no reason is given.
        """
        if "unkeyed" not in self.show(request).state.seen:
            self.decide("unkeyed", request, by=by, reason=reason)
        self.keys.destroy(request)
        return self.show(request)

    def show(self, request: str) -> Request:
        """Return one request.

        Raises
        ------
        ExpungeError
            If the ledger does not know it.
        """
        if found := self._find(request):
            return found
        raise ExpungeError(f"request {request!r} is not in the ledger; expunge list shows those that are")

    def requests(self) -> list[Request]:
        """All requests, in the order in which they came."""
        return _requests(self.ledger.events())

    def ready(self) -> list[Request]:
        """Return requests that the next batch may take."""
        wanted = Status.APPROVED if self.settings.approval else Status.VALIDATED
        return [
            request
            for request in self.requests()
            if request.state.status in {wanted, Status.APPROVED} and not request.state.held
        ]

    def _find(self, request: str) -> Request | None:
        events = self.ledger.events(request)
        return _request(request, events) if events else None

    def _check_times(self, parsed: Parsed) -> None:
        submission = parsed.submission
        problems = []
        if submission.received_at > self.clock() + SKEW:
            problems.append(Problem(parsed.lines.at(("received_at",)), "received_at", "lies in the future"))
        if submission.due_at is not None and stamp(submission.due_at) > self._due(submission):
            what = f"later than {self.settings.due_months} month(s) after received_at; extend it instead"
            problems.append(Problem(parsed.lines.at(("due_at",)), "due_at", what))
        if problems:
            raise SubmissionError(problems)

    def _due(self, submission: Submission) -> str:
        return stamp(submission.received_at + relativedelta(months=self.settings.due_months))

    def _extended(self, writer: Writer, request: str) -> str:
        events = writer.events(request)
        received = next((event.body["received_at"] for event in events if "received_at" in event.body), None)
        if received is None:
            raise ExpungeError(f"request {request!r} is not in the ledger, or has no due date")
        months = self.settings.due_months + self.settings.extension_months
        return stamp(datetime.fromisoformat(received) + relativedelta(months=months))

    def _reject(self, request: str, origin: Mapping[str, str], error: SubmissionError) -> Receipt:
        with self.ledger.writing() as writer:
            writer.append("received", request, **origin)
            writer.append("rejected", request, problems=[problem.as_record() for problem in error.problems])
        return Receipt(self.show(request), error.problems)

    def _record(
        self,
        writer: Writer,
        parsed: Parsed,
        catalogue: Catalogue,
        request: str,
        origin: Mapping[str, str],
        key: bytes,
    ) -> bool:
        """Append the events of a valid submission; return whether its key is needed."""
        earlier = [other for other in _requests(writer.events()) if other.state.status not in FRUITLESS]
        ids, erased_by = self._resolve(parsed, catalogue, earlier)
        first = self._same(ids, erased_by, earlier)
        submission = parsed.submission
        writer.append(
            "received",
            request,
            **origin,
            requester=submission.requester,
            ground=submission.ground,
            received_at=stamp(submission.received_at),
            due_at=stamp(submission.due_at) if submission.due_at else self._due(submission),
        )
        if first:
            writer.append("duplicate", request, first=first, already_erased_by=sorted(erased_by))
            return False
        samples = [
            {kind: reference(key, kind, name) for kind, name in catalogue.names_for(sample_id)}
            for sample_id in ids
        ]
        samples.sort(key=lambda sample: sample["id"])  # by digest: their order tells nothing
        writer.append("validated", request, samples=samples, already_erased_by=sorted(erased_by))
        return True

    def _resolve(
        self, parsed: Parsed, catalogue: Catalogue, earlier: Iterable[Request]
    ) -> tuple[set[str], set[str]]:
        """Return the ids that a submission means, and the requests that erased what is no longer there.

        Raises
        ------
        SubmissionError
            If a name means nothing, or a sample is named twice.
        """
        named_by: dict[str, Named] = {}
        erased_by: set[str] = set()
        problems = []
        digests = [
            (other, self.keys.load(other.id), other.digests)
            for other in earlier
            if self.keys.exists(other.id)
        ]
        for named in parsed.named:
            problem = catalogue.problem(named)
            if problem:
                eraser = next(
                    (
                        other.id
                        for other, key, known in digests
                        if any(
                            reference(key, named.kind, form) in known.get(named.kind, ())
                            for form in forms(str(named.value))
                        )
                    ),
                    None,
                )
                if eraser:
                    erased_by.add(eraser)
                else:
                    problems.append(parsed.problem(named, problem))
                continue
            for sample_id in catalogue.ids(named):
                if sample_id in named_by:
                    line = parsed.line_of(named_by[sample_id])
                    place = f" in line {line}" if line else ""
                    problems.append(parsed.problem(named, f"means a sample that is named before{place}"))
                    break
                named_by[sample_id] = named
        if problems:
            raise SubmissionError(problems)
        return set(named_by), erased_by

    def _same(self, ids: set[str], erased_by: set[str], earlier: Iterable[Request]) -> str | None:
        """Return the first request with the very same samples, or one that erased some where all are gone."""
        if not ids:
            return min(erased_by)
        if erased_by:
            return None
        for other in earlier:
            if other.count == len(ids) and self.keys.exists(other.id):
                key = self.keys.load(other.id)
                if {reference(key, "id", sample_id) for sample_id in ids} == other.digests["id"]:
                    return other.id
        return None


def new_id(at: datetime, suffix: str | None = None) -> str:
    """Return an id such as ``20260501-9f86d081``: the day, and 32 random bits if no suffix is given."""
    return f"{at:%Y%m%d}-{suffix or secrets.token_hex(4)}"


def _requests(events: Iterable[Event]) -> list[Request]:
    grouped: dict[str, list[Event]] = {}
    for event in events:
        if event.request is not None:
            grouped.setdefault(event.request, []).append(event)
    return [_request(name, own) for name, own in grouped.items()]


def _request(name: str, events: list[Event]) -> Request:
    return Request(name, state_of(event.kind for event in events), tuple(events))
