"""What the names in a submission mean: samples that there are, or that an earlier request has erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tasks.requests import events as facts
from tasks.requests.catalogue import LOST, Catalogue
from tasks.requests.copies import UNKNOWN, Copies
from tasks.requests.keys import KeyStore, reference
from tasks.requests.ledger import Writer
from tasks.requests.parsing import Parsed
from tasks.requests.record import Record
from tasks.requests.schema import Named, Problem, SubmissionError
from tasks.requests.standing import Row
from tasks.requests.states import FRUITLESS, Status
from tasks.requests.subjects import HOW_TO_TELL
from tasks.samples.unicode_forms import forms

ERASED = frozenset({Status.PURGED, Status.CLOSED})
"""The samples of a request that stands here have left the data, and whatever was made of them."""

LEAVING = frozenset({Status.PROMOTED, Status.PURGING})
"""Those of one that stands here may have left the split, and are still to be purged: a hold may keep them."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the names of a submission mean.

    Attributes
    ----------
    ids
        Samples that there are.
    erased_by
        Requests that erased what is no longer there.
    class_erased
        Whether it names a class of which every sample was erased, by whatever name.
    copies
        Other samples that show the same picture as one that a name means, or nearly, and stay; ``None`` if
        nobody has looked.
    taken_along
        Those that do not stay, but are among the samples.
    shared
        How many of the samples show other people than those that are asked for.
    """

    ids: frozenset[str]
    erased_by: frozenset[str] = frozenset()
    class_erased: bool = False
    copies: Copies | None = None
    taken_along: Copies = field(default_factory=Copies)
    shared: int = 0


def asked_for(parsed: Parsed, catalogue: Catalogue, keys: KeyStore) -> frozenset[str]:
    """Return the samples that the names of a submission mean, of those that there are; none if one is wrong.

    Raises
    ------
    LostSubjectsKeyError
        If it names a person, and it cannot be told whose the samples are.
    """
    present, _, problems = _present(parsed, catalogue, keys)
    return frozenset() if problems else frozenset(present)


def find(
    record: Record,
    writer: Writer,
    parsed: Parsed,
    catalogue: Catalogue | None,
    near: Collection[str] = (),
) -> Meaning | None:
    """Return what the names of a submission mean.

    Parameters
    ----------
    record, writer
        What earlier requests have asked for and erased.
    parsed
        The submission.
    catalogue
        The samples that there are; ``None`` while the data cannot be read.
    near
        What is near to :func:`asked_for` by the model's features.

    Returns
    -------
    Meaning or None
        ``None`` while that cannot be told: the data cannot be read, or what is not there any more is named by
        an open request, which has not erased it yet.

    Raises
    ------
    SubmissionError
        If a name means nothing, or a sample is named twice, or nothing would be left to train on.
    LostSubjectsKeyError
        If it names a person, and it cannot be told whose the samples are.
    """
    if catalogue is None:
        return None
    present, missing, problems = _present(parsed, catalogue, record.keys)
    copies, taken = catalogue.copies_of(present, near), Copies()
    if parsed.submission.near_copies == "include":
        if not catalogue.tells_copies:
            problems.append(Problem(None, "near_copies", UNKNOWN))
        copies, taken = Copies(), copies or Copies()
    ids = {*present, *taken.ids}
    askers = _askers(record, writer, [named for named, _ in missing]) if missing else {}
    erased_by = {asker.request for asker in askers.values() if _has_erased(asker)}
    gone = [
        named
        for named, _ in missing
        if named not in askers and named.kind == "class" and str(named.value) in catalogue.classes
    ]
    takers = [row for row in writer.rows() if _stood(row) in ERASED | LEAVING] if gone else []
    class_erased = bool(takers)
    for named, problem in missing:
        if named not in askers and not (class_erased and named in gone):
            problems.append(parsed.problem(named, problem))
    if problems:
        raise SubmissionError(problems)
    if not all(map(_has_erased, askers.values())) or any(_stood(row) in LEAVING for row in takers):
        return None
    _refuse_what_leaves_nothing(record, writer, ids, catalogue)
    shared = _shared(parsed, present, ids, catalogue, record.keys)
    return Meaning(frozenset(ids), frozenset(erased_by), class_erased, copies, taken, shared)


def same(record: Record, writer: Writer, ids: frozenset[str], request: str) -> str | None:
    """Return the open request with the very same samples that comes first."""
    for row in writer.rows(only_open=True):
        if row.samples != len(ids) or row.first or row.request == request:
            continue
        known = record.recognition(writer, row.request)
        if known is not None and all(map(known.means, ids)):
            return row.request
    return None


def _present(
    parsed: Parsed, catalogue: Catalogue, keys: KeyStore
) -> tuple[dict[str, Named], list[tuple[Named, str]], list[Problem]]:
    """Return the samples that there are, the names of none, with the reason, and what is named twice.

    A person's samples may be named by themselves, too: who asks for all of them need not know which they are.
    """
    named_by: dict[str, Named] = {}
    of_people: dict[str, Named] = {}
    missing: list[tuple[Named, str]] = []
    problems: list[Problem] = []
    for named in parsed.named:
        if named.kind == "subject":
            found = catalogue.subjects.of(str(named.value), keys)
            of_people |= dict.fromkeys(found, named)
            if not found:
                told = f"; {HOW_TO_TELL}" if not catalogue.subjects else ""
                missing.append((named, f"{LOST['subject']}{told}"))
            continue
        if problem := catalogue.problem(named):
            missing.append((named, problem))
            continue
        for sample_id in catalogue.ids(named):
            if sample_id in named_by:
                line = parsed.line_of(named_by[sample_id])
                place = f" in line {line}" if line else ""
                problems.append(parsed.problem(named, f"means a sample that is named before{place}"))
                break
            named_by[sample_id] = named
    return of_people | named_by, missing, problems


def _shared(
    parsed: Parsed, named: Mapping[str, Named], ids: set[str], catalogue: Catalogue, keys: KeyStore
) -> int:
    """How many samples show other people than those that are asked for.

    Where people are asked for, that is also a copy of another person's which is taken along.
    """
    people = [str(each.value) for each in parsed.named if each.kind == "subject"]
    asked = frozenset[str]().union(*(catalogue.subjects.digests_of(each, keys) for each in people))
    shown = catalogue.subjects.shown
    return sum(
        bool(shown[name] - asked) and (len(shown[name]) > 1 or (bool(people) and name not in named))
        for name in ids & shown.keys()
    )


def _askers(record: Record, writer: Writer, missing: list[Named]) -> dict[Named, Row]:
    """Return for each name of what is not there the request that named it, one that has erased it if any.

    Only here is all that was ever asked for read. A digest is looked for in an event's text: that of one kind
    of name is none of another's.
    """
    rows = {row.request: row for row in writer.rows() if row.status not in FRUITLESS}
    found: dict[Named, Row] = {}
    for event in writer.events(kinds=(facts.Validated.kind,)):
        row = rows.get(event.request or "")
        wanted = [named for named in missing if named not in found or not _has_erased(found[named])]
        if not wanted:
            break
        if row is None or (key := record.key_if_there(row.request)) is None:
            continue
        if row.status is Status.DUPLICATE:  # of which the first may have lost its key
            row = rows.get(row.first or "", row)
        for named in wanted:
            if any(reference(key, named.kind, form) in event.text for form in forms(str(named.value))):
                found[named] = row
    return found


def _has_erased(row: Row) -> bool:
    return _stood(row) in ERASED


def _stood(row: Row) -> Status | None:
    """Where a request stands, or stood before it failed."""
    return row.before if row.status is Status.FAILED else row.status


def _refuse_what_leaves_nothing(record: Record, writer: Writer, ids: set[str], catalogue: Catalogue) -> None:
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
    gone = ids | set(_asked_by_open(record, writer, labels))
    left = Counter(label for name, label in labels.items() if name not in gone)
    if max(left.values(), default=0) < 2:
        what = (
            "with the other open requests, leaves no two training samples of a class, so no model can be "
            "trained on the rest: take the model out of use and delete the data instead"
        )
        raise SubmissionError([Problem(None, "samples", what)])


def _asked_by_open(record: Record, writer: Writer, ids: Iterable[str]) -> Iterator[str]:
    names = list(ids)
    for row in writer.rows(only_open=True):
        if row.samples and not row.first and (known := record.recognition(writer, row.request)):
            yield from known.among(names)
