"""Files of MLflow's runs that lie elsewhere: with a server, in a bucket, in a folder outside the checkout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.errors import ExpungeError, UnavailableError
from tasks.erasure.search import Asked, find, sought_of
from tasks.erasure.stores import Hit

if TYPE_CHECKING:
    from tasks.tracking.deletion import Deletion

LARGEST = 1 << 26
"""Bytes of a file that is downloaded to be searched."""


class RunFiles:
    """Files of this project's runs; an item is a run's id and a path.

    Parameters
    ----------
    deletion
        What knows the runs.
    is_searched
        Tells of a folder of this machine whether it is searched anyway: its files are left out.
    """

    name = "MLflow run files"
    how = (
        f"every file up to {LARGEST >> 20} MiB of this project's runs that keep them outside the checkout; "
        "other projects' are not read"
    )

    def __init__(self, deletion: Deletion, is_searched: Callable[[Path], bool]) -> None:
        self.unread: dict[str, str] = {}
        self.partly: Counter[str] = Counter()
        self._deletion = deletion
        self._is_searched = is_searched

    def search(self, wanted: Asked) -> Iterator[Hit]:
        """Find files that hold samples; what is too large, or refused, is told in ``unread``.

        Raises
        ------
        UnavailableError
            If MLflow does not answer.
        """
        self.unread, self.partly, sought = {}, Counter(), sought_of(wanted)
        runs = self._deletion.runs_elsewhere(self._is_searched)
        for item, size in self._deletion.files(runs).items():
            if size > LARGEST:
                self.unread[item] = f"{size} bytes are too much to be downloaded"
                continue
            try:
                with self._deletion.downloaded(item) as file:
                    found = find(file, sought)
            except UnavailableError:
                raise
            except (ExpungeError, OSError) as error:
                self.unread[item] = str(error)
                continue
            self.partly.update(map(str, found.unread))
            if found:
                yield Hit(self.name, item, found.why, found.whole, weak=found.by_end)

    def delete(self, item: str) -> None:
        """Delete a file of a run; one that is gone already stays gone."""
        self._deletion.delete_file(item)
