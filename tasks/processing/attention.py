"""What needs a person: said from the first minute, not once it is overdue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.processing import checkout, left
from tasks.processing.certifying import key_periods
from tasks.processing.reconcile import differences
from tasks.requests import pending
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import stamp
from tasks.requests.desk import Desk
from tasks.requests.high_water import check, list_of
from tasks.requests.signing import signing_key
from tasks.requests.standing import Row
from tasks.requests.states import UNDONE, Status

FINAL = frozenset(Status) - UNDONE - {Status.FAILED}
"""From here on a request can be neither refused nor withdrawn."""


def what_needs_a_person(
    desk: Desk, params: Params, root: Path, environ: Mapping[str, str], *, reconcile: bool = True
) -> list[str]:
    """Return one line for everything that nothing but a person can bring on.

    Parameters
    ----------
    desk
        Keeps the ledger.
    params
        Of the checkout.
    root
        The checkout.
    environ
        Names servers.
    reconcile
        Whether to compare MLflow, Prefect and ``data/base`` with the ledger, too.
    """
    readable = cache(lambda: Catalogue.load_or_none(patience=0)[0] is not None)  # once, and only if asked
    found = [line for row in desk.rows(only_open=True) for line in _of_request(desk, row, readable)]
    looks = (
        partial(_elsewhere, desk, root),
        partial(_signing, desk),
        partial(_kept_out, desk, params),
        partial(lost_holds, desk),
        partial(lost_people, desk),
        partial(_left, desk),
    )
    for look in looks:
        found += _guarded(look)
    if reconcile:
        found += differences(desk, params, root, environ)
    return found


def _of_request(desk: Desk, row: Row, readable: Callable[[], bool]) -> Iterator[str]:
    """Tell of one request; ``readable`` says whether the data can be read."""
    name = f"request {row.request}"
    if row.due_at is not None and row.due_at < stamp(desk.clock()):
        held = ", and is on legal hold" if row.held else ""
        yield f"{name} is overdue since {desk.day(row.due_at)}{held}"
    if row.status is Status.FAILED:
        yield f"{name} failed: expunge show {row.request} tells why; then expunge retry, refuse or withdraw"
    if desk.waits_for_approval(row) and not row.held:
        why = f", since {row.shared} of its samples show other people, too" if row.shared else ""
        yield f"{name} waits for approval{why}: expunge approve {row.request}"
    if row.status is Status.RECEIVED and pending.is_kept(row.request):
        if not readable():  # else it waits for an earlier one
            what = "make data/split readable (dvc repro split), then process"
            yield f"{name} is received and not resolved: {what}"
    elif row.status is Status.RECEIVED:
        lost = f"{name} is received, and what it named is lost"
        yield f"{lost}: have it submitted again, then expunge refuse {row.request}"
    if row.samples and not desk.keys.exists(row.request):
        yield lost_key(row)


def lost_key(row: Row) -> str:
    """Say that the key of a request is lost, and what is to be done."""
    restore = f"request {row.request}: its key is lost; restore it from the backup of the keys"
    return restore if row.status in FINAL else f"{restore}, or: expunge refuse {row.request}"


def lost_holds(desk: Desk) -> list[str]:
    """Say of which holds nobody can tell what they protect, and what is to be done."""
    return [
        f"{hold}: its key is lost, so nobody can tell what this hold protects, and no purge goes on; "
        f"restore it from the backup of the keys, or: expunge release {hold}"
        for hold in desk.lost_holds()
    ]


def lost_people(desk: Desk) -> list[str]:
    """Say why a person's samples cannot be found, where the data says whose they are; else nothing."""
    catalogue, _ = Catalogue.load_or_none(patience=0)
    found = catalogue.subjects.why_nobody(desk.keys) if catalogue else ""
    return [found] if found else []


def _elsewhere(desk: Desk, root: Path) -> list[str]:
    refusal = checkout.why_elsewhere(desk, root) or checkout.why_not_the_ledger(desk, root, history=True)
    return [refusal] if refusal else []


def _signing(desk: Desk) -> list[str]:
    if known := key_periods(desk.ledger):
        signing_key(desk.keys, known[-1].key)
    return []


def _kept_out(desk: Desk, params: Params) -> list[str]:
    check(list_of(params.split), desk.keys)
    return []


def _left(desk: Desk) -> list[str]:
    return list(left.standing(desk))


def _guarded(look: Callable[[], list[str]]) -> list[str]:
    """What is found; that one cannot look is a line too, and hides no other."""
    try:
        return look()
    except ExpungeError as error:
        return [str(error)]
