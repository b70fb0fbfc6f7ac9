"""Ledger, keys, settings and clock together: what is needed to write the record, and to read it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from tasks.core.errors import ExpungeError
from tasks.core.files import write_whole
from tasks.requests.chain import Anchor, Event, Head, check_chain, now
from tasks.requests.events import TRANSITIONS, Fact
from tasks.requests.key_folder import open_keys
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger, Writer
from tasks.requests.request import Recognition, Request
from tasks.requests.settings import Settings
from tasks.requests.standing import Row
from tasks.requests.states import history


@dataclass(frozen=True, slots=True)
class Record:
    """The record of requests: everything that is written to it, or asked of it, goes through here.

    Attributes
    ----------
    ledger, keys, settings, clock
        The events; the keys under which they name samples; the rules; the time.
    """

    ledger: Ledger
    keys: KeyStore
    settings: Settings
    clock: Callable[[], datetime] = now
    _recognitions: dict[str, Recognition] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, settings: Settings, environ: Mapping[str, str], root: Path) -> Self:
        """Open the record of the checkout at ``root``; EXPUNGE_LEDGER and EXPUNGE_KEYS go before settings.

        Raises
        ------
        ExpungeError
            If the ledger's URL is not set, or the keys lie inside the repository.
        """
        ledger = Ledger(environ.get("EXPUNGE_LEDGER") or settings.ledger)
        return cls(ledger, open_keys(settings, environ, root), settings)

    # writing

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Keep all that the body appends, or nothing, and mark the head beside the keys."""
        with self.ledger.writing() as writer:
            yield writer
        self._mark()

    def record(self, fact: Fact, subject: str | None = None) -> Event:
        """Append one event."""
        with self.writing() as writer:
            return writer.append(fact, subject)

    def key_if_there(self, name: str) -> bytes | None:
        """Return a key; ``None`` if it is lost or damaged: one key must not stop what others need."""
        try:
            return self.keys.load(name)
        except ExpungeError:
            return None

    def recognition(self, writer: Writer, request: str) -> Recognition | None:
        """Return what tells all samples of a request that is resolved; ``None`` if its key is lost.

        It never changes from then on, so it is read once, however many submissions are compared with it.
        """
        if request not in self._recognitions:
            if (key := self.key_if_there(request)) is None:
                return None
            self._recognitions[request] = Recognition.of_all(own_events(writer, request), key)
        return self._recognitions[request]

    # the mark beside the keys

    def marks(self) -> list[Anchor]:
        """Return the head that was marked beside the keys at the last write, if there is one.

        Raises
        ------
        ExpungeError
            If the mark is damaged.
        """
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
        known = [*self.marks(), *anchors]
        with self.ledger.streaming() as events:
            return check_chain(events, known)

    def check_whole(self, anchors: Collection[Anchor] = ()) -> Head:
        """Prove what :meth:`check` does, and that the table of states tells what the events do.

        Raises
        ------
        ExpungeError
            If one of them does not hold.
        """
        head = self.check(anchors)
        if differing := self.ledger.standing_differs():
            raise ExpungeError(
                f"the table of states does not fit the events of {', '.join(differing[:3])}; "
                "make it again: expunge doctor --rebuild"
            )
        return head

    def _mark(self) -> None:
        """Mark the head, unless the ledger no longer passes through the last mark: that must stay seen."""
        path, head = self._mark_path(), self.ledger.head()
        if path is None:
            return
        try:
            marked = [anchor.head for anchor in self.marks()]
        except ExpungeError:
            return
        if all(self.ledger.passes(known) for known in marked):
            with write_whole(path, private=True) as file:
                file.write(f"{head}\n".encode())

    def _mark_path(self) -> Path | None:
        genesis = self.ledger.genesis()
        return self.keys.folder / f"ledger-{genesis[:16]}.mark" if genesis else None

    # reading

    def find(self, request: str) -> Request | None:
        """Return one request, with what is told of its batch; ``None`` if the ledger does not know it."""
        events = self.ledger.events(request)
        if not events or events[0].kind not in TRANSITIONS:
            return None
        found = _request(request, events)
        return replace(found, of_batch=tuple(self.ledger.events(found.batch))) if found.batch else found

    def show(self, request: str) -> Request:
        """Return one request.

        Raises
        ------
        ExpungeError
            If the ledger does not know it.
        """
        if found := self.find(request):
            return found
        raise ExpungeError(f"request {request!r} is not in the ledger; expunge list shows those that are")

    def rows(self, **filters: Any) -> list[Row]:
        """Where requests stand, in the order in which they came.

        The earliest due date of a request and of those that wait behind it governs it.

        Parameters
        ----------
        filters
            As of :func:`tasks.requests.standing.rows`.
        """
        rows = self.ledger.rows(**filters)
        if not any(row.open for row in rows):
            return rows
        earliest: dict[str, str] = {}
        for row in self.ledger.rows(only_behind=True):
            if row.first and row.due_at:
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
        found = [_request(name, own) for name, own in grouped.items() if own[0].kind in TRANSITIONS]
        return [replace(each, of_batch=tuple(grouped.get(each.batch or "", ()))) for each in found]


def own_events(writer: Writer, request: str) -> Request:
    """Return a request as it is told within a transaction, without its batch."""
    return _request(request, writer.events(request))


def _request(name: str, events: Sequence[Event]) -> Request:
    state = history((event.kind for event in events), TRANSITIONS)
    return Request(name, state, tuple(events))
