"""The process that delivers the spool: one at a time, as long as there is something to deliver."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tasks.core.errors import ExpungeError
from tasks.journal.spool import SENDER_LOCK
from tasks.tracking.pending import Waiting, waiting
from tasks.tracking.probe import why_unreachable

if TYPE_CHECKING:
    from tasks.tracking.store import Store

POLL = 0.5
"""Seconds between two looks at the journals of running stages."""

log = logging.getLogger(__name__)


def send(root: Path) -> None:
    """Deliver all journals in the spool; return when none is left that can be delivered now.

    While a stage or a pipeline run is at work, its journal is followed. A second sender leaves at once.
    The spool is looked at again after the lock is given back: whoever found the lock held relies on it.
    """
    stuck: set[str] = set()
    while any(journal.key not in stuck for journal in waiting(root)):
        try:
            with FileLock(root / SENDER_LOCK).acquire(timeout=1):
                stuck |= _Delivery(root).run()
        except Timeout:
            return


def limit_http(timeout: int) -> None:
    """Let MLflow's client in this process give up a request after ``timeout`` seconds and one retry.

    MLflow's own: 120 s a request and 7 retries with growing pauses, four minutes in all.
    """
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"


class _Delivery:
    """What is done under the lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stores: dict[str, Store] = {}
        self.down: dict[str, str] = {}
        self.stuck: set[str] = set()

    def run(self) -> set[str]:
        """Deliver until only what cannot be delivered now is left; return the keys of that."""
        while journals := self._open():
            changed = {journal.pipeline for journal in journals if self._try(self._follow, journal)}
            for parent in (journal for journal in self._open() if journal.is_pipeline):
                if parent.is_over:
                    self._try(self._complete, parent)
                elif parent.key in changed:
                    self._try(self._refresh, parent)
            followed = self._open()
            if all(journal.is_elsewhere and not journal.is_over for journal in followed):
                return self.stuck | {journal.key for journal in followed}
            if not changed:
                time.sleep(POLL)
        return self.stuck

    def _open(self) -> list[Waiting]:
        return [journal for journal in waiting(self.root) if journal.key not in self.stuck]

    def _try(self, action: Callable[[Waiting], bool], journal: Waiting) -> bool:
        """Do something about a journal; on failure note why, and leave it to a later sender."""
        try:
            return action(journal)
        except Exception as error:
            uri = journal.uri
            if uri not in self.down and (reason := why_unreachable(uri, journal.timeout)):
                self.down[uri] = reason
            if not isinstance(error, ExpungeError):
                log.exception("%s of %s", journal.name, journal.key)
            problem = self.down.get(uri) or " ".join(str(error).split())[:300] or type(error).__name__
            journal.note(problem=problem)
            self.stuck.add(journal.key)
            return False

    def _follow(self, journal: Waiting) -> bool:
        """Send what is new; return whether a stage began or ended."""
        from tasks.tracking.replay import replay

        over = journal.is_over
        store = self._store(journal)
        run_id, began = replay(store, journal)
        if journal.is_pipeline:
            return False
        if over:
            store.end(run_id, journal)
            journal.remove()
        return began or over

    def _refresh(self, parent: Waiting) -> bool:
        from tasks.tracking.pipeline_run import refresh

        refresh(self._store(parent), parent)
        return True

    def _complete(self, parent: Waiting) -> bool:
        """Close a pipeline run that is over, once all its stages are sent."""
        from tasks.tracking.pipeline_run import complete

        unsent = [journal for journal in waiting(self.root) if journal.pipeline == parent.key]
        if not unsent:
            complete(self._store(parent), parent)
            parent.remove()
        elif all(journal.key in self.stuck for journal in unsent):
            raise ExpungeError(f"waits for {', '.join(sorted(journal.name for journal in unsent))}")
        return True

    def _store(self, journal: Waiting) -> Store:
        uri = journal.uri
        if uri in self.down:
            raise ExpungeError(self.down[uri])
        if uri not in self.stores:
            if reason := why_unreachable(uri, journal.timeout):
                self.down[uri] = reason
                raise ExpungeError(reason)
            limit_http(journal.timeout)
            from tasks.tracking.store import Store

            self.stores[uri] = Store(uri, self.root)
        return self.stores[uri]
