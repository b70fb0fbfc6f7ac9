"""Whose an object in DVC's cache or a remote is, and so whether a purge may delete it."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.erasure.checklist import Outcome
from tasks.erasure.lineage import WORKSPACE, Lineage, current_outs
from tasks.erasure.pointers import Pointer, Pointers, read_pointers
from tasks.erasure.search import Asked, named, sought_of
from tasks.erasure.side_files import is_copy, passed_over
from tasks.erasure.stores import Hit
from tasks.erasure.stores.dvc import OID, DvcCache, Objects, bare

Fate = tuple[Outcome, str]

SPLIT = "split"
FOREIGN = "not made by this repository's stages"
SHARED = "shared with kept data"


@dataclass
class Ownership:
    """What of DVC's stores belongs to this repository.

    An object belongs to it if a stage of its ``dvc.lock``, in whatever commit, or an entry of the run cache
    that is its own, made it, or if its source is tracked and names it. All else is somebody else's, whatever
    it holds: another project's in the same cache, or a data set that the user tracks beside the source.

    Attributes
    ----------
    root
        The repository's.
    source
        Path of the source, below the root.
    wanted
        What identifies the samples.
    stores
        The cache, and the remotes that answer.
    planned
        MD5s that an earlier run found to belong to it, before it was cut short.
    """

    root: Path
    source: str
    wanted: Asked
    stores: list[Objects]
    planned: Collection[str] = ()
    pointers: Pointers = field(init=False)
    lineage: Lineage = field(init=False)
    _lists_read: dict[str, dict[str, str] | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.pointers = read_pointers(self.root)
        run_caches, complete = {}, True
        for store in self.stores:
            try:
                run_caches[store.name] = store.runs()
            except (ExpungeError, OSError):  # its search tells it
                complete = False
        cache = next((store for store in self.stores if isinstance(store, DvcCache)), None)
        self._private = cache if complete and cache is not None and cache.private else None
        private = self._private.name if self._private else None
        self.lineage = Lineage.read(
            self.root, self.source, self.pointers, run_caches, files_of=self.files_of, private=private
        )
        self.planned = {bare(md5) for md5 in self.planned}

    def files_of(self, md5: str) -> dict[str, str] | None:
        """MD5 by path of the files in a list, from whatever store has it; ``None`` if none has."""
        if md5 not in self._lists_read:
            self._lists_read[md5] = self._read_list(md5)
        return self._lists_read[md5]

    def _read_list(self, md5: str) -> dict[str, str] | None:
        for store in self.stores:
            with suppress(FileNotFoundError, ValueError, ExpungeError, OSError):
                return store.files_of(md5)
        return None

    def is_erased(self, name: str) -> bool:
        """Whether a file of the source, by its path below that, is an erased sample's or a copy of it."""
        found = named(name, self.wanted)
        return bool(found and not found.by_end) or self._is_copy(name)

    @cached_property
    def lists(self) -> set[str]:
        """Lists of the source's folder, of all times."""
        known = {pointer.md5 for pointer in self.pointers.of(self.source) if pointer.md5.endswith(".dir")}
        return known | {f"{md5}.dir" for md5 in self.lineage.sources(self.source)}

    @cached_property
    def outdated(self) -> set[str]:
        """What must go of the source's own whatever a search finds in it: MD5s of lists and files.

        Its lists of all times that name an erased file, and what the commit that is checked out has of it
        and the working tree no longer has: a file of many samples was written anew, and the old one is void
        even if all that it shows of the erased looks like something that stays.
        """
        head = git.ask("rev-parse", "HEAD", root=self.root)
        of_source = self.pointers.of(self.source)
        before = {p.md5 for p in of_source if p.head} | self.lineage.made_of_source(self.source, head)
        now = {p.md5 for p in of_source if p.current}
        now |= self.lineage.made_of_source(self.source, WORKSPACE)
        still = self._with_files(now)
        found = self._with_files(before) - still if now else set()
        for pointer in of_source:
            files = self._files(pointer.md5)
            places = {name: self._below_source(pointer, name) for name in files}
            if any(place is not None and self.is_erased(place) for place in places.values()):
                found.add(pointer.md5)
            copies = {name for name, place in places.items() if place is not None and self._is_copy(place)}
            found |= {files[name] for name in copies} - still
        return found - now

    def _is_copy(self, name: str) -> bool:
        return passed_over(name) and is_copy(name, sought_of(self.wanted))

    def _files(self, md5: str) -> dict[str, str]:
        return (self.files_of(md5) or {}) if md5.endswith(".dir") else {}

    def _with_files(self, md5s: Collection[str]) -> set[str]:
        return {*md5s, *(each for md5 in md5s for each in self._files(md5).values())}

    def lists_of(self, md5s: Collection[str]) -> set[str]:
        """Return the source's lists, but for those of the working tree, that name one of the objects.

        A remote that has a list is taken by DVC to have all that it names.
        """
        now = {pointer.md5 for pointer in self.pointers.found if pointer.current}
        now |= self.lineage.made_of_source(self.source, WORKSPACE)
        gone = {bare(md5) for md5 in md5s}
        return {md5 for md5 in self.lists - now if not gone.isdisjoint(self._files(md5).values())}

    @cached_property
    def originals(self) -> set[str]:
        """MD5s of the source's files, of all times."""
        found = {p.md5 for p in self.pointers.of(self.source) if not p.md5.endswith(".dir")}
        for pointer in self.pointers.of(self.source):
            for name, md5 in (self.files_of(pointer.md5) or {}).items() if pointer.md5 in self.lists else ():
                if self._below_source(pointer, name) is not None:
                    found.add(md5)
        for md5 in self.lists - {pointer.md5 for pointer in self.pointers.found}:
            found |= set((self.files_of(md5) or {}).values())
        return found

    @cached_property
    def kept(self) -> set[str]:
        """MD5s of the files that the pointers of the working tree name, other than the samples."""
        found = set()
        for pointer in (each for each in self.pointers.found if each.current):
            files = self.files_of(pointer.md5) if pointer.md5.endswith(".dir") else {"": pointer.md5}
            for name, md5 in (files or {}).items():
                inside = self._below_source(pointer, name)
                if inside is None or not self.is_erased(inside):
                    found.add(md5)
        return found

    @property
    def unknown(self) -> list[str]:
        """Pointers of the working tree whose list no store has: what they keep cannot be told."""
        return [
            pointer.file
            for pointer in self.pointers.found
            if pointer.current and pointer.md5.endswith(".dir") and self.files_of(pointer.md5) is None
        ]

    def tracked_as(self, md5: str) -> str | None:
        """Path under which a pointer of this repository tracks an object, if one does."""
        return next((p.path for p in self.pointers.found if bare(p.md5) == bare(md5)), None)

    def fate(self, hit: Hit, store: Objects) -> Fate:
        """Return what is to become of something that was found, and why.

        ``DELETED`` if it is to go; ``MADE_AGAIN`` if it goes once there is a new version of it.
        """
        if hit.weak and hit.item not in self.outdated:
            return Outcome.NAMED_ALIKE, hit.why
        if not OID.fullmatch(hit.item):
            own = hit.item in self.lineage.entries.get(store.name, {})
            return (Outcome.DELETED, hit.why) if own else (Outcome.KEPT_REPORTED, f"{hit.why}; {FOREIGN}")
        md5 = bare(hit.item)
        own_list = self._is_own_list(hit.item, store)
        source = own_list or hit.item in self.originals
        if not (source or md5 in self.lineage.outs or md5 in self.planned):
            where = self.tracked_as(hit.item)
            return Outcome.KEPT_REPORTED, f"{hit.why}; {FOREIGN}" + (f", tracked as {where}" if where else "")
        if own_list and any(p.current and p.md5 == hit.item for p in self.pointers.found):
            return Outcome.MADE_AGAIN, hit.why
        if md5 in self.needed or (hit.item in self.kept and hit.whole):
            return Outcome.KEPT_SHARED, SHARED
        if hit.item in self.kept and source:
            return Outcome.MADE_AGAIN, hit.why
        if md5 in self.lineage.others or self._is_listed_by_others(hit.item, store):
            return Outcome.KEPT_SHARED, "another project or data set in the same store has it, too"
        if source and not own_list and not hit.whole and hit.item in self._elsewhere:
            return Outcome.KEPT_REPORTED, f"{hit.why}; another branch, tag or stash needs the rest of it"
        return Outcome.DELETED, hit.why

    def fate_of_output(self, md5: str) -> Fate:
        """Return what is to become of an output that was made of samples."""
        if bare(md5) in self.lineage.others:
            return Outcome.KEPT_SHARED, "another project in the same store made it, too"
        return Outcome.DELETED, "made of samples, or beside what holds them"

    def is_of_source(self, hit: Hit, store: Objects) -> bool:
        """Whether it is of the source, and not made of it."""
        return hit.item in self.originals or self._is_own_list(hit.item, store)

    def successor(self, md5: str) -> dict[str, str] | None:
        """Return a list without the samples if work elsewhere ends with it; ``None`` of others."""
        pointer = next((p for p in self.pointers.found if p.md5 == md5 and p.elsewhere), None)
        files = self.files_of(md5) if pointer else None
        if pointer is None or files is None:
            return None
        inside = {name: self._below_source(pointer, name) for name in files}
        return {
            name: each
            for name, each in files.items()
            if (place := inside[name]) is None or not self.is_erased(place)
        }

    @cached_property
    def needed(self) -> set[str]:
        """MD5s of the split as it is now."""
        return current_outs(self.root, SPLIT)

    @cached_property
    def _elsewhere(self) -> set[str]:
        found = set()
        for pointer in (each for each in self.pointers.found if each.elsewhere):
            found |= {pointer.md5, *(self.files_of(pointer.md5) or {}).values()}
        return found

    def _is_own_list(self, md5: str, store: Objects) -> bool:
        """Whether it lists the source's files, or was never committed and is in this cache alone."""
        if md5 in self.lists:
            return True
        if not md5.endswith(".dir") or store is not self._private or self.tracked_as(md5):
            return False
        if bare(md5) in self.lineage.others:
            return False
        return not any(md5 in other.present for other in self.stores if other is not store)

    def _is_listed_by_others(self, md5: str, store: Objects) -> bool:
        return any(
            md5 in store.scans.lists[each].values()
            for each in store.present
            if each in store.scans.lists
            and bare(each) not in self.lineage.outs
            and not self._is_own_list(each, store)
        )

    def _below_source(self, pointer: Pointer, name: str) -> str | None:
        """Path below the source of a file that a pointer names; ``None`` if it lies outside."""
        whole = Path(os.path.normpath(f"{pointer.path}/{name}"))
        return whole.relative_to(self.source).as_posix() if whole.is_relative_to(self.source) else None
