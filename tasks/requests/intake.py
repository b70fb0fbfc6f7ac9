"""Intake: from a submission to the first events of a request.

Whatever is submitted leads to a request in the record: validated, behind another, a duplicate, rejected, or,
where the data cannot be read, received. What a submission names is compared and recorded under the writer's
lock, so of many that come at once each is held against all that came before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests import holds, meanings, pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import stamp
from tasks.requests.copies import Copies
from tasks.requests.deadlines import Rules, due
from tasks.requests.keys import reference
from tasks.requests.ledger import SKEW, Writer
from tasks.requests.meanings import Meaning
from tasks.requests.neighbours import Near
from tasks.requests.parsing import Parsed, parse
from tasks.requests.record import Record
from tasks.requests.request import ID, Request, new_id
from tasks.requests.schema import Problem, SubmissionError
from tasks.requests.states import Status
from tasks.requests.subjects import LostSubjectsKeyError


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a submission led to: the request, and, if it was rejected, why.

    ``copies``: other samples that show the same pictures as those that it names; ``None`` if that cannot be
    told, or nothing was resolved. ``waits``: why it cannot be told now whose samples it asks for. ``untold``:
    why copies are not told by the model's features, though ``requests.near_features`` asks for it.
    """

    request: Request
    problems: tuple[Problem, ...] = ()
    copies: Copies | None = None
    waits: str = ""
    untold: str = ""

    def told(self) -> str:
        """Say in one line what became of the request, without the name of a sample."""
        found = f"; {self.copies.told()}, expunge show names them" if self.copies else ""
        told = [f"request {self.request.id} is {self.request.state.status}{found}", *self.lines()]
        return "; ".join(told)

    def lines(self) -> Iterator[str]:
        """Say what else of its samples who submits must know, without names."""
        validated = self.request.latest(facts.Validated)
        if validated and validated.near_copies:
            by = f", or are near by the model's features ({validated.by_features}),"
            also = by if validated.by_features else ""
            yield f"{validated.near_copies} sample(s) that show the same picture{also} are taken along"
        if validated and validated.shared:
            yield f"{validated.shared} sample(s) show other people, too"
        if self.untold:
            yield self.untold


RECORDED = 100
"""How many problems of a rejected submission the ledger keeps; whoever submits is told of all."""


def submit(
    record: Record,
    content: bytes,
    name: str,
    catalogue: Catalogue | None,
    *,
    channel: str,
    request: str | None = None,
    flow_run: str | None = None,
) -> Receipt:
    """Take a submission; see :meth:`tasks.requests.desk.Desk.submit`."""
    request = request or new_id(record.clock())
    if not ID.fullmatch(request):
        raise ExpungeError(f"{request[:80]!r} is no request id; one looks like 20260501-9f86d081")
    if known := record.find(request):
        return Receipt(known, known.problems)
    origin = facts.Received(channel=channel, flow_run=facts.FlowRun(id=flow_run) if flow_run else None)
    try:
        parsed = parse(content, name)
        _check_times(record, parsed)
    except SubmissionError as error:
        with record.writing() as writer:
            if writer.state(request).status is None:
                _reject(writer, request, error, origin)
        return Receipt(record.show(request), error.problems)
    received = _received(record, parsed, origin)
    return _take(record, request, parsed, catalogue, (received, name, content))


def foresee(record: Record, catalogue: Catalogue | None, submissions: Iterable[tuple[bytes, str]]) -> None:
    """Look once for what is near to the samples of many submissions, which are then taken one by one.

    What is wrong with a submission is told when it is taken. ``submissions``, bytes and a name each, are not
    asked for where copies are not told by the model's features.
    """
    if record.settings.near_features is None or catalogue is None:
        return
    asked = []
    for content, name in submissions:
        with suppress(Exception):
            asked.append(meanings.asked_for(parse(content, name), catalogue, record.keys))
    catalogue.neighbours.look(record, asked)


def resolve(record: Record, catalogue: Catalogue) -> Iterator[Receipt]:
    """Resolve the requests that were received while it could not be told what they name."""
    foresee(record, catalogue, _readable(path for _, path in pending.waiting()))
    for request, path in pending.waiting():
        with record.ledger.writing() as writer:
            if writer.state(request).status is not Status.RECEIVED:  # it has ended, or never was recorded
                path.unlink(missing_ok=True)
                continue
        try:
            parsed = parse(path.read_bytes(), path.name)
        except OSError:
            continue  # it may be readable the next time; the others go on
        except SubmissionError as error:
            with record.writing() as writer:
                if writer.state(request).status is Status.RECEIVED:
                    _reject(writer, request, error)
            receipt = Receipt(record.show(request), error.problems)
        else:
            receipt = _take(record, request, parsed, catalogue)
        if receipt.request.state.status is not Status.RECEIVED:
            path.unlink(missing_ok=True)
            yield receipt


def _readable(paths: Iterable[Path]) -> Iterator[tuple[bytes, str]]:
    for path in paths:
        with suppress(OSError):
            yield path.read_bytes(), path.name


def _take(
    record: Record,
    request: str,
    parsed: Parsed,
    catalogue: Catalogue | None,
    arrival: tuple[facts.Received, str, bytes] | None = None,
) -> Receipt:
    """Record what names mean, or, while that cannot be told, that the request has come.

    ``arrival``: what is told of how it came, and the submission itself, unless that has been recorded.
    """
    problems: tuple[Problem, ...] = ()
    copies: Copies | None = None
    waits = untold = ""
    drawn = False
    near = _near(record, parsed, catalogue)
    try:
        with record.writing() as writer:
            if writer.state(request).status is not (None if arrival else Status.RECEIVED):
                return Receipt(record.show(request))
            try:
                try:
                    meaning = meanings.find(record, writer, parsed, catalogue, near.ids)
                except LostSubjectsKeyError as error:
                    meaning, waits = None, str(error)
            except SubmissionError as error:
                problems = error.problems
                _reject(writer, request, error, arrival[0] if arrival else None)
            else:
                if arrival:
                    received, name, content = arrival
                    if meaning is None:  # under the lock, or it could be taken for what a killed one left
                        pending.keep(request, name, content)
                    writer.append(received, request)
                if meaning is None:
                    holds.catch(record, writer, request, parsed.submission.requester, ())
                elif meaning.ids and catalogue:
                    drawn = not record.keys.exists(request)
                    key = record.keys.create(request) if drawn else record.keys.load(request)
                    copies, untold = meaning.copies, near.untold
                    _validate(record, writer, request, parsed, catalogue, meaning, key)
                else:
                    erased_by = tuple(sorted(meaning.erased_by))
                    first = min(erased_by, default="")
                    writer.append(facts.Duplicate(first=first, already_erased_by=erased_by), request)
    except BaseException:
        if drawn and not _may_be_kept(record, request):
            record.keys.destroy(request)
        raise
    return Receipt(record.show(request), problems, copies, waits, untold)


def _near(record: Record, parsed: Parsed, catalogue: Catalogue | None) -> Near:
    """Return what is near by the model's features; before the writer's lock, for all images are read."""
    if record.settings.near_features is None or catalogue is None:
        return Near()
    try:
        return catalogue.neighbours.of(record, meanings.asked_for(parsed, catalogue, record.keys))
    except LostSubjectsKeyError:
        return Near()


def _may_be_kept(record: Record, request: str) -> bool:
    """Whether the events of a request that could not be finished may be in the ledger all the same."""
    try:
        return record.find(request) is not None
    except ExpungeError:
        return True


def _validate(
    record: Record,
    writer: Writer,
    request: str,
    parsed: Parsed,
    catalogue: Catalogue,
    meaning: Meaning,
    key: bytes,
) -> None:
    """Append the events of a request that names samples which are there."""
    samples = [
        {kind: reference(key, kind, name) for kind, name in catalogue.names_for(each)} for each in meaning.ids
    ]
    samples.sort(key=lambda sample: sample["id"])  # by digest: their order tells nothing
    record.keys.keep_names(request, sorted(meaning.ids))
    classes = sorted(
        reference(key, "class", str(each.value)) for each in parsed.named if each.kind == "class"
    )
    erased_by = tuple(sorted(meaning.erased_by))
    people = sorted(
        {reference(key, "subject", str(each.value)) for each in parsed.named if each.kind == "subject"}
    )
    told = facts.Validated(
        samples=tuple(samples),
        already_erased_by=erased_by,
        classes=tuple(classes),
        copies=len(meaning.copies or ()),
        near_copies=len(meaning.taken_along),
        by_features=(meaning.copies or Copies()).by_features + meaning.taken_along.by_features,
        subjects=tuple(people),
        shared=meaning.shared,
    )
    writer.append(told, request)
    if (
        not erased_by
        and not meaning.class_erased
        and (first := meanings.same(record, writer, meaning.ids, request))
    ):
        writer.append(facts.Behind(first=first), request)
    holds.catch(record, writer, request, parsed.submission.requester, meaning.ids)


def _received(record: Record, parsed: Parsed, origin: facts.Received) -> facts.Received:
    submission = parsed.submission
    due_at = stamp(submission.due_at) if submission.due_at else _due(record, submission.received_at)
    times = {"received_at": stamp(submission.received_at), "due_at": due_at}
    who = {"requester": submission.requester, "ground": submission.ground}
    return origin.model_copy(update=who | times)


def _check_times(record: Record, parsed: Parsed) -> None:
    submission = parsed.submission
    problems = []
    if submission.received_at > record.clock() + SKEW:
        problems.append(Problem(parsed.lines.at(("received_at",)), "received_at", "lies in the future"))
    if submission.due_at is not None and stamp(submission.due_at) > _due(record, submission.received_at):
        what = f"later than {record.settings.due_months} month(s) after received_at; extend it instead"
        problems.append(Problem(parsed.lines.at(("due_at",)), "due_at", what))
    if problems:
        raise SubmissionError(problems)


def _due(record: Record, received_at: datetime) -> str:
    return stamp(due(received_at, record.settings.due_months, Rules.of(record.settings)))


def _reject(
    writer: Writer, request: str, error: SubmissionError, received: facts.Received | None = None
) -> None:
    """Append that a submission was rejected; of one that is wrong, only how it came is kept."""
    if received:
        writer.append(facts.Received(channel=received.channel, flow_run=received.flow_run), request)
    problems = tuple(
        facts.ProblemRecord(line=each.line, where=each.where, what=each.what)
        for each in error.problems[:RECORDED]
    )
    writer.append(facts.Rejected(problems=problems), request)
