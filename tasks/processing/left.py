"""What purges have left for a person, as the record tells it: stores and counts, never a name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tasks.erasure.again import REST
from tasks.erasure.checklist import FAULTS, NEEDS_PERSON, Outcome
from tasks.requests import events as facts
from tasks.requests.desk import Desk
from tasks.requests.standing import Row
from tasks.requests.states import Status

PURGED = frozenset({Status.PURGED, Status.CLOSED})


def alarms(batch: str, request: str, lines: Iterable[facts.ChecklistLine]) -> Iterator[str]:
    """Tell what a purge has left: said once, by the run that ends it.

    Parameters
    ----------
    batch, request
        The batch, and a request of it.
    lines
        What the record tells of its purge.
    """
    for line in lines:
        if line.outcome in NEEDS_PERSON:
            yield f"{batch}: {_told(line)}; expunge verify erasure {request} shows what, by name"


def faults(desk: Desk) -> dict[str, list[facts.ChecklistLine]]:
    """Return what the last purge of every batch could not search, or should have deleted and did not.

    A batch none of whose requests has its key any more cannot be searched for, so it is left out.

    Returns
    -------
    dict
        Lines of the checklist by the batch's id, oldest first.
    """
    found = {
        batch: [line for line in lines if line.outcome in FAULTS] for batch, lines in last_told(desk).items()
    }
    return {batch: lines for batch, lines in found.items() if lines and searchable(desk, batch)}


def last_told(desk: Desk) -> dict[str, list[facts.ChecklistLine]]:
    """Return what was told last of each store, by the batch's id: some stores may be searched again alone."""
    found: dict[str, list[facts.ChecklistLine]] = {}
    for event in desk.ledger.events(kinds=(facts.Purge.kind,)):
        if isinstance(event.fact, facts.Purge) and event.request:
            now = list(event.fact.checklist)
            told = {line.store for line in now}
            before = found.get(event.request, []) if REST in told else []
            found[event.request] = [*(line for line in before if line.store not in told), *now]
    return found


def searchable(desk: Desk, batch: str) -> list[Row]:
    """Return the requests of a batch that were purged and whose key is there."""
    rows = desk.ledger.rows(batch=batch)
    return [row for row in rows if row.status in PURGED and desk.keys.exists(row.request)]


def standing(desk: Desk) -> Iterator[str]:
    """Tell the faults that stand, each once however many batches have it, until a search finds none."""
    batches: dict[tuple[str, str, str], list[str]] = {}
    for batch, lines in faults(desk).items():
        for line in lines:
            batches.setdefault((line.store, line.scope, line.outcome), []).append(batch)
    for (store, scope, outcome), names in batches.items():
        request = searchable(desk, names[-1])[0].request
        what = "is not searched" if outcome == Outcome.NOT_SEARCHED else "still holds what had to be deleted"
        yield (
            f"{store} ({scope}) {what}, says the purge of {len(names)} batch(es): expunge verify erasure "
            f"{request} shows what, by name; mend it, then expunge purge run {request}"
        )


def _told(line: facts.ChecklistLine) -> str:
    parts = (line.store, f"{line.scope}: {line.outcome}", str(line.count or ""), line.detail)
    return ", ".join(part for part in parts if part)
