"""Git's history as a store: it is searched whole, and nothing is ever deleted from it here.

Commits keep what was once in them, and beside them Git keeps what a stash, the reflog or nothing at all leads
to. Taking something out means writing all later commits anew, which only the people who work with them can
decide. So it is told how many commits hold samples, and with which commands they can be rewritten.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.core import git
from tasks.core.files import STATE, content_digest, write_text
from tasks.erasure.found import Found
from tasks.erasure.git_objects import DAMAGED, Trees, all_objects, folder_of, reachable_commits, read_all
from tasks.erasure.public import WHAT, PublicFiles
from tasks.erasure.search import Asked, find, named, sought_of
from tasks.erasure.side_files import is_copy
from tasks.erasure.sought import Sought
from tasks.erasure.stores import Hit

CACHE = STATE / "git"
LARGEST = 1 << 32
"""Bytes of an object that is searched."""

POINTER = re.compile(rb"version https://git-lfs[^\n]*\n(?:[^\n]*\n)*?oid sha256:([0-9a-f]{64})\n")

MESSAGES, LOOSE, OWN, LFS = "messages of commits and tags", "no path", "files of Git itself", "LFS objects"
"""Places of what lies at no path of a commit."""


@dataclass(frozen=True, slots=True)
class Held:
    """What Git keeps of samples at one place.

    Attributes
    ----------
    place
        A path from the top of the Git work tree, or its folder where the path itself names a sample; or one
        of the words for what lies at no path.
    why
        What was found there first, in words.
    contents
        Ids of the objects: blobs, and of messages the commits and tags.
    commits
        Number of commits that have them.
    unreachable
        How many of these no branch, tag, stash or reflog leads to.
    public
        Whether it is a public data set in Git, see :mod:`tasks.erasure.public`.
    submodule
        Path of the submodule that keeps it; empty for the project's own repository.
    by_name
        Whether no more than names of samples was found in it.
    """

    place: str
    why: str
    contents: frozenset[str]
    commits: int
    unreachable: int
    public: bool = False
    submodule: str = ""
    by_name: bool = False

    @property
    def text(self) -> str:
        """All of it in one sentence that names nobody."""
        alone = f" ({self.unreachable} of them reached by no branch)" if self.unreachable else ""
        text = f"{len(self.contents)} versions in {self.commits} commits{alone}: {self.why}"
        return f"{text}; {WHAT}" if self.public else text


NAMES_ALONE = re.compile(r"holds names of samples: \d+")
"""What :attr:`tasks.erasure.found.Found.why` says of a content in which nothing but names was met."""


class GitHistory:
    """All that Git keeps for the project at ``root``, and for its submodules that are here.

    Parameters
    ----------
    root
        The project's.
    scan
        Names what is searched for, so that no object is searched for it twice. By default that is a digest of
        what is wanted, where it is digests of requests; with anything else nothing is remembered.
    """

    name = "Git history"
    how = (
        "every object of Git, whatever leads to it, by content and path: blobs, messages, Git's own files, "
        "and the LFS objects that are here"
    )

    def __init__(self, root: Path, *, scan: str | None = None) -> None:
        self.root = root
        self._scan = scan
        self._missing_lfs = 0
        self._unread = 0

    def search(self, wanted: Asked) -> Iterator[Hit]:
        """Find places that hold samples, public data sets aside; an item is a place."""
        for held in self.held(wanted):
            if not held.public:
                yield Hit(self.name, str(PurePosixPath(held.submodule, held.place)), held.text)

    def delete(self, item: str) -> None:
        """Delete nothing: see :mod:`tasks.erasure.git_rewrite`."""

    def held(self, wanted: Asked) -> list[Held]:
        """Return what Git keeps of samples, by place; nothing outside a Git repository.

        Raises
        ------
        ExpungeError
            If Git cannot or will not read the repository, in its words.
        """
        self._missing_lfs = self._unread = 0
        if git.git_folder(self.root) is None:
            return []
        scan = self._scan or _digest_of(wanted)
        wanted = sought_of(wanted)
        found = list(self._held(wanted, scan))
        for path in self.submodules():
            inner = GitHistory(self.root / path, scan=scan)
            found += [
                dataclasses.replace(each, submodule=str(PurePosixPath(path, each.submodule)))
                for each in inner.held(wanted)
            ]
            self._missing_lfs += inner._missing_lfs
            self._unread += inner._unread
        return sorted(found, key=lambda each: (each.submodule, each.place, each.public))

    def limits(self) -> list[str]:
        """Return what the last search could not see, a sentence each.

        Raises
        ------
        ExpungeError
            If Git cannot or will not read the repository.
        """
        if git.git_folder(self.root) is None:
            return []
        found = []
        if git.call("rev-parse", "--is-shallow-repository", root=self.root).strip() == b"true":
            found.append(
                "the clone is shallow: earlier commits are not here; get them: git fetch --unshallow"
            )
        if git.ask("config", "--get-regexp", r"^remote\..*\.(promisor|partialclonefilter)$", root=self.root):
            found.append("the clone is partial: what it has not fetched is not here; search a full clone")
        absent = sorted(set(self._submodule_paths()) - set(self.submodules()))
        if absent:
            found.append(f"{len(absent)} submodules are not here; get them: git submodule update --init")
        if self._missing_lfs:
            found.append(
                f"{self._missing_lfs} LFS objects are not here, but on the server; "
                "get them: git lfs fetch --all"
            )
        if self._unread:
            found.append(f"{self._unread} objects are damaged or larger than {LARGEST >> 30} GiB: git fsck")
        return found

    def from_top(self, path: str) -> str:
        """Return a path of the project as seen from the top of the Git work tree, normalised."""
        prefix = git.call("rev-parse", "--show-prefix", root=self.root).decode(errors="surrogateescape")
        inside = os.path.relpath(self.root / path, self.root)
        return os.path.normpath(PurePosixPath(prefix.rstrip("\n"), inside))

    def submodules(self) -> list[str]:
        """Return the paths of the submodules that are here."""
        return [path for path in self._submodule_paths() if (self.root / path / ".git").exists()]

    def _submodule_paths(self) -> list[str]:
        told = (
            git.call("ls-files", "--stage", "-z", root=self.root).decode(errors="surrogateescape").split("\0")
        )
        return [line.partition("\t")[2] for line in told if line.startswith("160000 ")]

    def _held(self, wanted: Asked, scan: str | None) -> Iterator[Held]:
        objects = all_objects(self.root)
        known = _Known(self._cache(scan))
        kinds = {each.id: each.kind for each in objects}
        self._unread += sum(each.size > LARGEST or each.kind == DAMAGED for each in objects)
        todo = [
            each.id for each in objects
            if each.kind not in {"tree", DAMAGED} and each.size <= LARGEST and each.id not in known
        ]  # fmt: skip
        for id_, content in read_all(self.root, todo, self._damaged):
            known.add(id_, _Seen.of(content, wanted))
        lfs = list(self._lfs(wanted, known))
        known.save()
        yield from lfs
        yield from self._own_files(wanted)
        messages = frozenset(id_ for id_ in known.hits if kinds.get(id_) in {"commit", "tag"})
        if messages:
            why = known[min(messages)].why
            yield Held(MESSAGES, why, messages, sum(kinds[id_] == "commit" for id_ in messages), 0)
        blobs = frozenset(id_ for id_ in known.hits if kinds.get(id_) == "blob")
        yield from self._in_commits(wanted, known, blobs, Trees(self.root, objects))

    def _in_commits(
        self, wanted: Asked, known: _Known, blobs: frozenset[str], trees: Trees
    ) -> Iterator[Held]:
        public = PublicFiles(self.root).sha256
        places = trees.places(blobs, by_path=lambda path: _is_name(path, wanted))
        self._unread += len(trees.damaged)
        reachable = reachable_commits(self.root)
        groups: dict[tuple[str, bool], list[tuple[str, str]]] = {}
        for path, id_ in places:
            shown = str(PurePosixPath(path).parent) + "/" if named(path, wanted) else path
            is_public = id_ in blobs and known[id_].sha256 in public
            groups.setdefault((shown, is_public), []).append((path, id_))
        for (shown, is_public), members in groups.items():
            commits = set().union(*(places[each] for each in members))
            ids = frozenset(id_ for _, id_ in members)
            found = [known[id_].why for id_ in sorted(ids) if id_ in blobs]
            why = next(iter(found), "has the name of a sample")
            by_name = len(found) == len(ids) and all(map(NAMES_ALONE.fullmatch, found))
            beside = len(commits - reachable)
            yield Held(shown, why, ids, len(commits), beside, is_public, by_name=by_name)
        loose = blobs - {id_ for _, id_ in places}
        for is_public in (False, True):
            ids = frozenset(id_ for id_ in loose if (known[id_].sha256 in public) == is_public)
            if ids:
                yield Held(LOOSE, known[min(ids)].why, ids, 0, 0, is_public)

    def _lfs(self, wanted: Asked, known: _Known) -> Iterator[Held]:
        storage = git.ask("config", "lfs.storage", root=self.root)
        folder = folder_of(self.root) / (storage or "lfs") / "objects"
        here = {path.name: path for path in folder.glob("??/??/*") if path.is_file()}
        self._missing_lfs += len(known.pointers - here.keys())
        found = {}
        for sha256, path in sorted(here.items()):
            id_ = f"lfs-{sha256}"
            if id_ not in known:
                known.add(id_, _Seen.of(path, wanted))
            if known[id_].why:
                found[sha256] = known[id_].why
        if found:
            yield Held(LFS, found[min(found)], frozenset(found), 0, 0)

    def _own_files(self, wanted: Asked) -> Iterator[Held]:
        """Search what Git writes beside its objects: the reflog, the last message, names of branches.

        The index is left out: it lists what is tracked now, which the commits tell.
        """
        found = {}
        top = folder_of(self.root)
        for folder, folders, files in os.walk(top):
            if Path(folder) == top:
                folders[:] = [each for each in folders if each not in {"objects", "lfs", "modules", "hooks"}]
            for path in (Path(folder, file) for file in files if file != "index"):
                with suppress(FileNotFoundError):  # Git is at work
                    if stat.S_ISREG(path.lstat().st_mode) and (hit := find(path, wanted)) and not hit.by_end:
                        found[path.relative_to(top).as_posix()] = hit.why
        if found:
            yield Held(OWN, found[min(found)], frozenset(found), 0, 0)

    def _damaged(self, _: str) -> None:
        self._unread += 1

    def _cache(self, scan: str | None) -> Path | None:
        if scan is None:
            return None
        code = content_digest(Path(__file__).parent)
        repository = str(folder_of(self.root))
        return CACHE / f"{hashlib.sha256(f'{scan} {code} {repository}'.encode()).hexdigest()}.txt"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a search found in one object; ``pointer`` is the LFS object that it stands for."""

    why: str = ""
    sha256: str = ""
    pointer: str = ""

    @classmethod
    def of(cls, content: bytes | Path, wanted: Asked) -> _Seen:
        found = find(content, wanted)
        if found.by_end:
            found = Found()
        data = content if isinstance(content, bytes) else b""
        match = POINTER.match(data) if len(data) < 1024 else None
        pointer = match[1].decode() if match else ""
        if not found and _is_file_of_sample(pointer, wanted):
            return cls("stands for an LFS object that is the image file of a sample", pointer, pointer)
        if not found:
            return cls(pointer=pointer)
        if isinstance(content, bytes):
            sha256 = hashlib.sha256(content).hexdigest()
        else:
            with content.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(found.why, sha256, pointer)


def _is_name(path: str, wanted: Asked) -> bool:
    found = named(path, wanted)
    return bool(found and not found.by_end) or is_copy(path, sought_of(wanted))


def _is_file_of_sample(sha256: str, wanted: Asked) -> bool:
    return bool(sha256) and sought_of(wanted).is_file(sha256)


class _Known:
    """What was found in which object, kept in a file between searches for the same; it names nobody."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: dict[str, _Seen] = {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                id_, _, told = line.partition(" ")
                self._seen[id_] = _Seen(*json.loads(told)) if told else _Seen()
        self.changed = False

    def __contains__(self, id_: str) -> bool:
        return id_ in self._seen

    def __getitem__(self, id_: str) -> _Seen:
        return self._seen[id_]

    def add(self, id_: str, seen: _Seen) -> None:
        self._seen[id_] = seen
        self.changed = True

    @property
    def hits(self) -> frozenset[str]:
        return frozenset(id_ for id_, seen in self._seen.items() if seen.why)

    @property
    def pointers(self) -> frozenset[str]:
        return frozenset(seen.pointer for seen in self._seen.values() if seen.pointer)

    def save(self) -> None:
        if self._path is not None and self.changed:
            empty = _Seen()
            lines = (
                f"{id_}\n" if seen == empty else f"{id_} {json.dumps(dataclasses.astuple(seen))}\n"
                for id_, seen in self._seen.items()
            )
            write_text(self._path, "".join(lines))


def _digest_of(wanted: Asked) -> str | None:
    if isinstance(wanted, Sought):
        return None
    values = [
        [sorted(value) if isinstance(value, frozenset) else value.hex() for value in fields]
        for fields in (
            [getattr(each, field.name) for field in dataclasses.fields(each)] for each in wanted
        )
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(sorted(values)).encode()).hexdigest()
