"""Where requests are carried out: one checkout of one project for each ledger.

Weights in production, originals and stores lie in a checkout; a second one would close requests that the
first has not carried out. So the ledger says which it is, and every other is refused.
"""

from __future__ import annotations

import hashlib
import platform
import re
import secrets
from pathlib import Path

from tasks.core import git
from tasks.core.errors import ExpungeError, PlainError
from tasks.core.files import STATE, write_text
from tasks.requests import events as facts
from tasks.requests.commits import anchors_in_git
from tasks.requests.desk import Desk

NAME = STATE / "checkout"

DRAWN = re.compile("[0-9a-f]{32}")


def name_of(root: Path) -> str:
    """Return the checkout's own name, made at the first call; a copy of it elsewhere has another.

    Raises
    ------
    ExpungeError
        If the file that holds what was drawn for it is damaged.
    """
    path = root / NAME
    if not path.exists():
        write_text(path, f"{secrets.token_hex(16)}\n")
    drawn = path.read_text(encoding="ascii", errors="replace").strip()
    if not DRAWN.fullmatch(drawn):
        raise ExpungeError(f"{path} is damaged; delete it, then: expunge settle --reason …")
    return hashlib.sha256(f"{drawn}\0{root.resolve()}".encode()).hexdigest()[:32]


def settled(desk: Desk) -> facts.Settled | None:
    """Return where the requests of the ledger are carried out."""
    event = desk.ledger.last((facts.Settled.kind,))
    return event.fact if event and isinstance(event.fact, facts.Settled) else None


def why_elsewhere(desk: Desk, root: Path) -> str | None:
    """Return why requests are not carried out in this checkout, or ``None`` if they are."""
    there = settled(desk)
    if there is None or there.checkout == name_of(root):
        return None
    if there.commit and not git.ask("cat-file", "-t", there.commit, root=root):
        return (
            "the ledger is that of another project, or the history was rewritten since: commit "
            f"{there.commit[:10]} is not in this repository; name another ledger (requests.ledger), "
            "or: expunge settle --reason …"
        )
    return (
        "the requests of this ledger are carried out in another checkout, on "
        f"{there.host or 'another machine'}; "
        "run expunge process there, or, if that one is gone, move them here: expunge settle --reason …"
    )


def why_not_the_ledger(desk: Desk, root: Path, *, history: bool = False) -> str | None:
    """Return why the ledger is not the one in which this project's requests are recorded; ``None`` if it is.

    Parameters
    ----------
    desk
        Keeps the ledger.
    root
        The checkout.
    history
        Whether the commits of Git are asked in any case, and not only where the ledger is empty: that takes
        longer with every batch.

    Raises
    ------
    ExpungeError
        If Git cannot read the history, or the mark beside the keys is damaged.
    """
    head = desk.ledger.head()
    known = desk.marks()
    if history or not head.seq:
        known += sorted(anchors_in_git(root) or (), key=lambda anchor: anchor.head.seq)[-1:]
    for anchor in known:
        if not desk.ledger.passes(anchor.head):
            restore = "restore it from its backup, or name it: EXPUNGE_LEDGER, requests.ledger"
            if anchor.head.seq <= head.seq:
                return f"the ledger is another one than that of {anchor.source}; {restore}"
            there = f"ends at event {head.seq}" if head.seq else "is empty"
            return (
                f"the ledger {there}, and {anchor.source} is of one with {anchor.head.seq} events; {restore}"
            )
    return None


def refuse_elsewhere(desk: Desk, root: Path) -> None:
    """See that this checkout may write to the ledger: it is settled here, or nowhere yet, and not lost.

    Raises
    ------
    PlainError
        If requests are carried out elsewhere, or recorded in another ledger.
    """
    if refusal := why_elsewhere(desk, root) or why_not_the_ledger(desk, root):
        raise PlainError(refusal)


def settle(desk: Desk, root: Path, *, by: str, reason: str | None = None) -> None:
    """Record that requests are carried out here from now on."""
    commit = git.ask("rev-parse", "HEAD", root=root) or None
    host = platform.node()
    desk.record(facts.Settled(checkout=name_of(root), host=host, commit=commit, by=by, reason=reason))


def ensure(desk: Desk, root: Path, by: str) -> None:
    """See that requests are carried out here; the first time, record it.

    Raises
    ------
    ExpungeError
        If they are carried out elsewhere.
    """
    refuse_elsewhere(desk, root)
    if settled(desk) is None:
        settle(desk, root, by=by)
