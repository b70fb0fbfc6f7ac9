"""The desk: the few things that can be done with a request.

The command line, the inbox and the Prefect deployments all come here, so a request is treated the same
whichever way it arrives. The desk holds what is needed to write the record: ledger, keys, settings, clock.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.files import write_whole
from tasks.requests import events as facts
from tasks.requests import pending
from tasks.requests.catalogue import Catalogue, names_of
from tasks.requests.chain import Anchor, Event, Head, check_chain, now, stamp
from tasks.requests.deadlines import due, extended_due
from tasks.requests.events import TRANSITIONS, Fact
from tasks.requests.keys import KeyStore, reference
from tasks.requests.ledger import SKEW, Ledger, Writer
from tasks.requests.request import Recognition, Request
from tasks.requests.schema import Named, Parsed, Problem, SubmissionError, parse
from tasks.requests.settings import Settings
from tasks.requests.standing import Row
from tasks.requests.states import FRUITLESS, Status, state_of

NEEDS_REASON = (facts.Refused, facts.Withdrawn, facts.Extended, facts.Held, facts.Released, facts.Unkeyed)
"""Decisions that must be explained."""

ID = re.compile(r"[0-9]{8}-[0-9a-f]{8}")
"""What a request's id looks like."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a submission led to: the request, and, if it was rejected, why."""

    request: Request
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A hold that can precede requests: for a requester's reference, or for samples."""

    id: str
    at: str
    placed: facts.HoldPlaced


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
            If the ledger's URL is not set, or the keys lie inside the repository.
        """
        ledger = Ledger(environ.get("EXPUNGE_LEDGER") or settings.ledger)
        return cls(ledger, KeyStore.of(settings, environ, root), settings)

    # writing

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Keep all that the body appends, or nothing, and mark the head beside the keys."""
        with self.ledger.writing() as writer:
            yield writer
        self._mark(writer.head)

    def record(self, fact: Fact, subject: str | None = None) -> Event:
        """Append one event."""
        with self.writing() as writer:
            return writer.append(fact, subject)

    def marks(self) -> list[Anchor]:
        """Return the head that was marked beside the keys at the last write, if there is one."""
        path = self._mark_path()
        if path is None or not path.exists():
            return []
        text = path.read_text(encoding="ascii", errors="replace").strip()
        try:
            return [Anchor(Head.parse(text), f"the mark {path}")]
        except ExpungeError:
            raise ExpungeError(f"{path} is damaged; restore it from the backup of the keys") from None

    def check(self, anchors: Collection[Anchor] = ()) -> Head:
        """Prove that the ledger is whole and passes through every anchor; return its head.

        Raises
        ------
        ExpungeError
            As :func:`~tasks.requests.chain.check_chain`.
        """
        return check_chain(self.ledger.events(), [*self.marks(), *anchors])

    def _mark(self, head: Head) -> None:
        path = self._mark_path()
        if path is not None and head.seq:
            with write_whole(path, private=True) as file:
                file.write(f"{head}\n".encode())

    def _mark_path(self) -> Path | None:
        genesis = self.ledger.genesis()
        return self.keys.folder / f"ledger-{genesis[:16]}.mark" if genesis else None

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
        """
        request = request or new_id(self.clock())
        if not ID.fullmatch(request):
            raise ExpungeError(f"{request[:80]!r} is no request id; one looks like 20260501-9f86d081")
        if known := self._find(request):
            return Receipt(known, known.problems)
        origin = facts.Received(channel=channel, flow_run=facts.FlowRun(id=flow_run) if flow_run else None)
        try:
            parsed = parse(content, name)
            self._check_times(parsed)
        except SubmissionError as error:
            return self._reject(request, origin, error)
        received = self._received(parsed, origin)
        if catalogue is None:
            pending.keep(request, name, content)
            self.record(received, request)
            return Receipt(self.show(request))
        return self._take(request, parsed, catalogue, received)

    def resolve(self, catalogue: Catalogue) -> Iterator[Receipt]:
        """Resolve the requests that were received while the data could not be read."""
        for request, path in pending.waiting():
            found = self._find(request)
            if found is not None and found.state.status is Status.RECEIVED:
                try:
                    parsed = parse(path.read_bytes(), path.name)
                except SubmissionError as error:
                    with self.writing() as writer:
                        writer.append(_rejected(error), request)
                    yield Receipt(self.show(request), error.problems)
                else:
                    yield self._take(request, parsed, catalogue, None)
            path.unlink(missing_ok=True)

    def _take(
        self, request: str, parsed: Parsed, catalogue: Catalogue, received: facts.Received | None
    ) -> Receipt:
        key = self.keys.create(request) if not self.keys.exists(request) else self.keys.load(request)
        kept = False
        try:
            with self.writing() as writer:
                if received is None or not writer.events(request):
                    kept = self._record(writer, parsed, catalogue, request, received, key)
                else:
                    kept = True
        except SubmissionError as error:
            if received is not None:
                return self._reject(request, received, error)
            with self.writing() as writer:
                writer.append(_rejected(error), request)
            return Receipt(self.show(request), error.problems)
        finally:
            if not kept:
                self.keys.destroy(request)
        return Receipt(self.show(request))

    def _received(self, parsed: Parsed, origin: facts.Received) -> facts.Received:
        submission = parsed.submission
        return origin.model_copy(
            update={
                "requester": submission.requester,
                "ground": submission.ground,
                "received_at": stamp(submission.received_at),
                "due_at": stamp(submission.due_at)
                if submission.due_at
                else self._due(submission.received_at),
            }
        )

    def _check_times(self, parsed: Parsed) -> None:
        submission = parsed.submission
        problems = []
        if submission.received_at > self.clock() + SKEW:
            problems.append(Problem(parsed.lines.at(("received_at",)), "received_at", "lies in the future"))
        if submission.due_at is not None and stamp(submission.due_at) > self._due(submission.received_at):
            what = f"later than {self.settings.due_months} month(s) after received_at; extend it instead"
            problems.append(Problem(parsed.lines.at(("due_at",)), "due_at", what))
        if problems:
            raise SubmissionError(problems)

    def _due(self, received_at: datetime) -> str:
        return stamp(due(received_at, self.settings))

    def _reject(self, request: str, origin: facts.Received, error: SubmissionError) -> Receipt:
        plain = facts.Received(channel=origin.channel, flow_run=origin.flow_run)
        with self.writing() as writer:
            writer.append(plain, request)
            writer.append(_rejected(error), request)
        return Receipt(self.show(request), error.problems)

    def _record(
        self,
        writer: Writer,
        parsed: Parsed,
        catalogue: Catalogue,
        request: str,
        received: facts.Received | None,
        key: bytes,
    ) -> bool:
        """Append the events of a valid submission; return whether its key is needed."""
        ids, erased_by, all_gone = self._resolve(writer, parsed, catalogue)
        self._refuse_what_leaves_nothing(writer, ids, catalogue)
        if received is not None:
            writer.append(received, request)
        if not ids:
            first = min(erased_by, default="")
            writer.append(facts.Duplicate(first=first, already_erased_by=tuple(sorted(erased_by))), request)
            return False
        samples = [
            {kind: reference(key, kind, name) for kind, name in names_of(each, catalogue.sources[each])}
            for each in ids
        ]
        samples.sort(key=lambda sample: sample["id"])  # by digest: their order tells nothing
        classes = sorted(
            reference(key, "class", str(each.value)) for each in parsed.named if each.kind == "class"
        )
        writer.append(
            facts.Validated(
                samples=tuple(samples), already_erased_by=tuple(sorted(erased_by)), classes=tuple(classes)
            ),
            request,
        )
        if not erased_by and not all_gone and (before := self._same(writer, ids, request)):
            writer.append(facts.Behind(first=before), request)
        self._hold_if_standing(writer, request, ids)
        return True

    def _resolve(
        self, writer: Writer, parsed: Parsed, catalogue: Catalogue
    ) -> tuple[set[str], set[str], bool]:
        """Return the ids that a submission means, and the requests that erased what is no longer there.

        Raises
        ------
        SubmissionError
            If a name means nothing, or a sample is named twice.
        """
        named_by: dict[str, Named] = {}
        erased_by: set[str] = set()
        problems = []
        earlier: list[tuple[str, bytes, Mapping[str, frozenset[str]]]] | None = None
        gone = False
        for named in parsed.named:
            problem = catalogue.problem(named)
            if problem:
                if earlier is None:  # only where something is not there: it reads all that was ever asked for
                    earlier = list(self._earlier(writer))
                value = str(named.value)
                eraser = next(
                    (
                        name
                        for name, key, known in earlier
                        if reference(key, named.kind, value) in known.get(named.kind, ())
                    ),
                    None,
                )
                if eraser:
                    erased_by.add(eraser)
                elif named.kind == "class" and value in catalogue.classes:
                    gone = True  # every sample of it was erased, by whatever name
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
        return set(named_by), erased_by, gone

    def _earlier(self, writer: Writer) -> Iterator[tuple[str, bytes, Mapping[str, frozenset[str]]]]:
        """Id, key and digests of every request that was validated and did not come to nothing."""
        fruitless = {row.request for row in writer.rows() if row.status in FRUITLESS}
        for event in writer.events(kinds=(facts.Validated.kind,)):
            name = event.request or ""
            if name in fruitless or not self.keys.exists(name) or not isinstance(event.fact, facts.Validated):
                continue
            request = Request(name, state_of((), TRANSITIONS), (event,))
            yield name, self.keys.load(name), {**request.digests, "class": frozenset(event.fact.classes)}

    def _same(self, writer: Writer, ids: set[str], request: str) -> str | None:
        """Return the open request with the very same samples that comes first."""
        for row in writer.rows(only_open=True):
            if (
                row.samples != len(ids)
                or row.first
                or row.request == request
                or not self.keys.exists(row.request)
            ):
                continue
            other = Request(row.request, state_of((), TRANSITIONS), tuple(writer.events(row.request)))
            known = Recognition.of_all(other, self.keys.load(row.request))
            if all(map(known.means, ids)):
                return row.request
        return None

    def _refuse_what_leaves_nothing(self, writer: Writer, ids: set[str], catalogue: Catalogue) -> None:
        """Refuse a request after which, with all that are open, no model could be trained and validated.

        Raises
        ------
        SubmissionError
            Saying so. To erase everything is to delete the project; no model is left that could be promoted.
        """
        labels = catalogue.labels
        asked = len(ids) + sum(row.samples or 0 for row in writer.rows(only_open=True))
        if not ids or 2 * asked < len(labels):
            return
        gone = ids | set(self._asked_by_open(writer, labels))
        left = Counter(label for name, label in labels.items() if name not in gone)
        if max(left.values(), default=0) < 2:
            what = (
                "with the other open requests, leaves no two training samples of a class, so no model can be "
                "trained on the rest: take the model out of use and delete the data instead"
            )
            raise SubmissionError([Problem(None, "samples", what)])

    def _asked_by_open(self, writer: Writer, ids: Iterable[str]) -> Iterator[str]:
        names = list(ids)
        for row in writer.rows(only_open=True):
            if row.samples and self.keys.exists(row.request):
                other = Request(row.request, state_of((), TRANSITIONS), tuple(writer.events(row.request)))
                yield from Recognition.of_all(other, self.keys.load(row.request)).among(names)

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
            if isinstance(decision, facts.Extended):
                decision = decision.model_copy(update={"due_at": self._extended(writer, request)})
            writer.append(decision, request)
            if isinstance(decision, facts.Refused | facts.Withdrawn):
                self._advance(writer, request)
        if isinstance(decision, facts.Refused | facts.Withdrawn):
            pending.drop(request)
        return self.show(request)

    def _extended(self, writer: Writer, request: str) -> str:
        found = next((event.fact for event in writer.events(request)), None)
        if not isinstance(found, facts.Received) or found.received_at is None:
            raise ExpungeError(f"request {request!r} is not in the ledger, or has no due date")
        return stamp(extended_due(datetime.fromisoformat(found.received_at), self.settings))

    def _advance(self, writer: Writer, first: str) -> None:
        """Let the first of those that wait behind a request take its place before the others."""
        behind = [row for row in writer.rows(only_open=True) if row.first == first]
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
        reason = " ".join(reason.split())
        if not reason or bool(requester) == bool(ids):
            raise ExpungeError("a standing hold needs a reason, and a requester's reference or samples")
        hold = f"hold-{new_id(self.clock())}"
        digests: list[str] = []
        if ids:
            key = self.keys.create(hold)
            digests = sorted(reference(key, "id", each) for each in ids)
        placed = facts.HoldPlaced(by=by, reason=reason, requester=requester, samples=tuple(digests))
        with self.writing() as writer:
            writer.append(placed, hold)
            for row in writer.rows(only_open=True):
                state = writer.state(row.request)
                touches = row.requester == requester if requester else self._shares(writer, row, ids)
                if touches and not state.held and state.status in TRANSITIONS["held"].sources:
                    writer.append(facts.Held(by=by, reason=reason, standing=hold), row.request)
        return hold

    def lift_hold(self, hold: str, *, by: str, reason: str) -> None:
        """End a standing hold, and release the requests that it alone held.

        Raises
        ------
        ExpungeError
            If there is no such hold, or no reason is given.
        """
        if hold not in {each.id for each in self.holds()}:
            raise ExpungeError(f"{hold!r} is no standing hold; expunge holds lists those that stand")
        reason = " ".join(reason.split())
        if not reason:
            raise ExpungeError(f"{hold}: give a reason; the record must say why it was lifted")
        with self.writing() as writer:
            writer.append(facts.HoldLifted(by=by, reason=reason), hold)
            for row in writer.rows(only_open=True):
                if not row.held:
                    continue
                held = [each.fact for each in writer.events(row.request) if each.kind == facts.Held.kind]
                last = held[-1] if held else None
                if isinstance(last, facts.Held) and last.standing == hold:
                    writer.append(facts.Released(by=by, reason=reason, standing=hold), row.request)

    def holds(self, writer: Writer | None = None) -> list[StandingHold]:
        """Return the standing holds that have not been lifted."""
        kinds = (facts.HoldPlaced.kind, facts.HoldLifted.kind)
        found: dict[str, StandingHold] = {}
        for event in writer.events(kinds=kinds) if writer else self.ledger.events(kinds=kinds):
            if isinstance(event.fact, facts.HoldPlaced):
                found[event.request or ""] = StandingHold(event.request or "", event.at, event.fact)
            else:
                found.pop(event.request or "", None)
        return list(found.values())

    def held_samples(self) -> Iterator[tuple[str, Recognition]]:
        """Name and samples of every hold that stands: of open requests, and for samples as such.

        Raises
        ------
        ExpungeError
            If the key of one is lost: then nothing may be purged that it could protect.
        """
        for hold in self.holds():
            if hold.placed.samples:
                yield hold.id, Recognition(self.keys.load(hold.id), hold.placed.samples)
        for row in self.ledger.rows(only_open=True):
            if row.held and row.samples:
                yield row.request, Recognition.of_all(self.show(row.request), self.keys.load(row.request))

    def _hold_if_standing(self, writer: Writer, request: str, ids: Collection[str]) -> None:
        received = next(event.fact for event in writer.events(request))
        requester = received.requester if isinstance(received, facts.Received) else None
        for hold in self.holds(writer):
            placed = hold.placed
            if placed.requester:
                touches = placed.requester == requester
            else:
                key = self.keys.load(hold.id)
                touches = bool(Recognition(key, placed.samples).among(ids))
            if touches:
                writer.append(facts.Held(by=placed.by, reason=placed.reason, standing=hold.id), request)
                return

    def _shares(self, writer: Writer, row: Row, ids: Sequence[str]) -> bool:
        if not row.samples or not self.keys.exists(row.request):
            return False
        other = Request(row.request, state_of((), TRANSITIONS), tuple(writer.events(row.request)))
        return bool(Recognition.of_all(other, self.keys.load(row.request)).among(ids))

    # questions

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

    def rows(self, **filters: object) -> list[Row]:
        """Where requests stand, in the order in which they came.

        The earliest due date of a request and of those that wait behind it governs it.

        Parameters
        ----------
        filters
            As of :func:`tasks.requests.standing.rows`.
        """
        rows = self.ledger.rows(**filters)
        earliest: dict[str, str] = {}
        for row in rows:
            if row.open and row.first and row.due_at:
                earliest[row.first] = min(earliest.get(row.first, row.due_at), row.due_at)
        return [
            replace(row, due_at=min(row.due_at, earliest[row.request]))
            if row.open and row.due_at and row.request in earliest
            else row
            for row in rows
        ]

    def requests(self, *, only_open: bool = False) -> list[Request]:
        """All requests with their events, or those that are open, in the order in which they came."""
        if only_open:
            return [self.show(row.request) for row in self.ledger.rows(only_open=True)]
        grouped: dict[str, list[Event]] = {}
        for event in self.ledger.events():
            if event.request is not None:
                grouped.setdefault(event.request, []).append(event)
        return [
            self._request(name, own, grouped) for name, own in grouped.items() if own[0].kind in TRANSITIONS
        ]

    def ready(self) -> list[Row]:
        """Return requests that the next batch may take."""
        wanted = {Status.APPROVED} if self.settings.approval else {Status.APPROVED, Status.VALIDATED}
        return [row for row in self.rows(only_open=True) if row.status in wanted and not row.held]

    def _find(self, request: str) -> Request | None:
        events = self.ledger.events(request)
        if not events or events[0].kind not in TRANSITIONS:
            return None
        found = self._request(request, events, {})
        return replace(found, of_batch=tuple(self.ledger.events(found.batch))) if found.batch else found

    @staticmethod
    def _request(name: str, own: Sequence[Event], of_batches: Mapping[str, Sequence[Event]]) -> Request:
        found = Request(name, state_of((event.kind for event in own), TRANSITIONS, name), tuple(own))
        return replace(found, of_batch=tuple(of_batches.get(found.batch or "", ())))


def urgency(row: Row, at: datetime, at_risk: timedelta) -> str:
    """``overdue``, ``at risk`` or ``on time``; ``-`` once it has ended."""
    if not row.open or row.due_at is None:
        return "-"
    if row.due_at < stamp(at):
        return "overdue"
    return "at risk" if row.due_at < stamp(at + at_risk) else "on time"


def new_id(at: datetime, suffix: str | None = None) -> str:
    """Return an id such as ``20260501-9f86d081``: the day, and 32 random bits if no suffix is given."""
    return f"{at:%Y%m%d}-{suffix or secrets.token_hex(4)}"


def _rejected(error: SubmissionError) -> facts.Rejected:
    return facts.Rejected(
        problems=tuple(
            facts.ProblemRecord(line=each.line, where=each.where, what=each.what) for each in error.problems
        )
    )
