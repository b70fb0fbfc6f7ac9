"""The places where samples can lie: each can be searched for them, and each can delete what was found.

======================  ==============================================================================
``folder``              any folder of files
``dvc``                 DVC's cache, remotes, run cache and memory of paths
``prefect``             what Prefect's server keeps of flow runs
``mlflow``              files of MLflow's runs
======================  ==============================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tasks.core.errors import ExpungeError
from tasks.erasure.found import Found
from tasks.erasure.search import Asked


@dataclass(frozen=True, slots=True)
class Hit:
    """Something in a store that holds samples.

    Attributes
    ----------
    store
        The store's name.
    item
        What its ``delete`` takes: a path, or the MD5 of one of DVC's objects.
    why
        What was found.
    whole
        Whether it is an image file of a sample and nothing else.
    weak
        Whether nothing but the end of a longer path, or a number, was found: no reason to delete anything.
    foreign
        Whether the store itself can tell that it is somebody else's.
    copy
        Whether it is where a program lays its copy of an image, see :mod:`tasks.erasure.side_files`.
    """

    store: str
    item: str
    why: str
    whole: bool = False
    weak: bool = False
    foreign: bool = False
    copy: bool = False


class UnsearchableError(ExpungeError):
    """A store that cannot be searched, now or later, until a person changes something."""


class Store(Protocol):
    """A place where samples can lie.

    Attributes
    ----------
    name
        Unique among the stores.
    how
        One sentence that says how it is searched.
    unread
        What the latest search could not read, by name, with the reason.
    partly
        How many contents the latest search could not open, or not to their end, by reason.
    """

    name: str
    how: str
    unread: dict[str, str]
    partly: Counter[str]

    def search(self, wanted: Asked) -> Iterable[Hit]:
        """Find what holds samples.

        Raises
        ------
        UnsearchableError
            If it can never be searched.
        UnavailableError
            If it does not answer.
        """

    def delete(self, item: str) -> None:
        """Delete what a search found; what is gone already stays gone."""


class Unopened:
    """A store that could not even be opened: its search says why."""

    how = "not at all"

    def __init__(self, name: str, error: ExpungeError) -> None:
        self.name = name
        self.unread: dict[str, str] = {}
        self.partly: Counter[str] = Counter()
        self._error = error

    def search(self, wanted: Asked) -> Iterable[Hit]:  # noqa: ARG002
        """Raise what kept it from being opened."""
        raise self._error

    def delete(self, item: str) -> None:
        """Do nothing: nothing was found."""


@dataclass
class Scans:
    """What was found in content, by its address, so that it is read once however many stores have it.

    Attributes
    ----------
    sizes
        Size of everything that was scanned: an object of another size is another.
    found
        What was found, of what holds samples or was not read to its end.
    lists
        Of every list of a folder's files: MD5 by path.
    runs
        Entries of the run cache, by store and path in it.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    lists: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def knows(self, address: str, size: int | None) -> bool:
        """Whether the very same was scanned before."""
        return size is not None and self.sizes.get(address) == size
