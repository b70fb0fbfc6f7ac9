"""What a purge left open is searched again, and nothing else: the rest was searched when the samples left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.erasure.begun import Begun
from tasks.erasure.checklist import Checklist, Line, Outcome
from tasks.erasure.git_lines import GIT, OTHER_GIT
from tasks.erasure.identity import remembered
from tasks.erasure.models import MODELS
from tasks.erasure.purge import Purge
from tasks.erasure.sought import Sought
from tasks.requests.request import Request

REST = "all other stores"
"""The store of a line that says: what an earlier checklist tells of other stores still holds."""


def search_again(purge: Purge, requests: Sequence[Request]) -> Checklist:
    """Finish a purge in the stores that did not answer, see :meth:`Purge.open_requests`.

    If one of them shows that more is to go than the purge knew of, everything is purged once more.

    Raises
    ------
    ExpungeError
        As of :meth:`Purge.carry_out`.
    """
    purge.begin()
    begun = Begun.of(purge.root, (request.id for request in requests))
    left = list(begun.open)
    wanted = remembered(begun.requests, requests, purge.desk, purge.params.split).sought
    void = purge.void_objects(wanted, purge.places.objects(purge.account.scans), begun, asked=left)
    if not void.going.issubset(begun.objects):
        return purge.carry_out(requests)
    begun.add(weights=void.digests())
    lines = list(void.unanswered)
    if MODELS in left:
        lines += purge.models.delete(requests, void.of_samples, purge.account)
    lines += purge.delete_objects(void)
    lines += [*void.left(wanted, purge.account, lines), *_others(purge, left, wanted)]
    told = {line.store for line in lines}
    gone = "it is set up no longer"
    lines += [Line(name, "all of it", Outcome.NOT_SEARCHED, 0, gone) for name in left if name not in told]
    why = "they were searched when the samples were purged"
    lines.append(Line(REST, "not searched again", Outcome.NOT_APPLICABLE, 0, why))
    return purge.end(begun, lines, wanted, log="again.log")


def _others(purge: Purge, left: Sequence[str], wanted: Sought) -> Iterator[Line]:
    if "checkpoints" in left:
        yield from purge.purge_checkpoints()
    for store in purge.places.others(left):
        if store.name in left:
            yield from purge.purge_store(store, wanted)
    if {GIT, OTHER_GIT}.intersection(left):
        yield from purge.git(wanted)
