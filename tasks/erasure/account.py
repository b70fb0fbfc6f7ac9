"""The account of a purge or a search: what was found in each store, and the lines that this makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasks.core.errors import ExpungeError
from tasks.erasure.checklist import Detail, Line, Outcome, counted
from tasks.erasure.ownership import FOREIGN
from tasks.erasure.search import Asked
from tasks.erasure.stores import Hit, Scans, Store, UnsearchableError

MEANING = {
    Outcome.KEPT_SHARED: "kept data, or another project, has the same; it stays theirs",
    Outcome.KEPT_REPORTED: f"{FOREIGN}, or needed by somebody; expunge verify erasure names it",
    Outcome.LEFT_BEHIND: "this repository's, and still there; expunge verify erasure names it",
    Outcome.NOT_SEARCHED: "could not be read",
}


@dataclass
class Account:
    """What is known so far.

    Attributes
    ----------
    details
        What the lines are about, by name.
    scans
        What was found in content that several stores may have.
    """

    details: list[Detail] = field(default_factory=list)
    scans: Scans = field(default_factory=Scans)

    def search(self, store: Store, wanted: Asked) -> tuple[list[Hit], Line | None]:
        """Search a store to its end before anything is deleted; a line if that cannot be done."""
        try:
            return list(store.search(wanted)), None
        except (ExpungeError, OSError) as error:
            return [], self.failed(store.name, error)

    def failed(self, store: str, error: Exception) -> Line:
        """Return the line of a store that cannot be searched, or does not answer now."""
        never = isinstance(error, UnsearchableError)
        outcome = Outcome.NOT_SEARCHED if never else Outcome.UNREACHABLE
        self.details.append(Detail(store, "", outcome, str(error)))
        why = "it cannot be searched as it is set up" if never else "it does not answer; it is tried again"
        return Line(store, "all of it", outcome, 0, why)

    def told(self, store: Store, judged: Sequence[Detail], failed: Line | None) -> list[Line]:
        """Return the lines of a store after its search.

        Parameters
        ----------
        store
            It remembers what it could not read.
        judged
            What was found, with what became of it.
        failed
            The line of a search or a deletion that was cut short.
        """
        self.details += judged
        lines = counted(judged, store.how, MEANING)
        self.details += [
            Detail(store.name, item, Outcome.NOT_SEARCHED, why) for item, why in store.unread.items()
        ]
        if store.unread:
            count, meaning = len(store.unread), MEANING[Outcome.NOT_SEARCHED]
            lines.append(Line(store.name, store.how, Outcome.NOT_SEARCHED, count, meaning))
        if failed:
            lines.append(failed)
        for why, count in sorted(store.partly.items()):
            lines.append(Line(store.name, "contents", Outcome.NOT_OPENED, count, why))
        found = any(line.outcome is not Outcome.NOT_OPENED for line in lines)
        return lines if found else [Line(store.name, store.how, Outcome.NOTHING_FOUND), *lines]
