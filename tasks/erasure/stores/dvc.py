"""What DVC keeps: objects in its cache and remotes, the run cache, and what it remembers of paths.

Objects have no names: the MD5 of an object's content says where it lies, ``files/md5/ab/cdef…`` (before
DVC 3: ``ab/cdef…``), and that of a folder's list of files ends with ``.dir``. Beside them, ``runs/`` holds
the run cache: what a stage once made of what. A cache or a remote may be shared with other projects.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.core.errors import RESTORE_LOCK, ExpungeError, UnavailableError
from tasks.core.files import digest
from tasks.core.temporary import temporary_folder
from tasks.erasure.search import Asked, Found, find, sought_of
from tasks.erasure.stores import Hit, Scans, UnsearchableError
from tasks.erasure.stores.folder import Folder

OBJECT = re.compile(r"(?:files/md5/)?([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
OID = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
LAYOUTS = ("files/md5/", "")
OURS = re.compile(r"(files|runs|fs|[0-9a-f]{2})/")
"""Folders of DVC in a cache or remote; others beside them are somebody else's."""


class Objects:
    """DVC's objects and run cache below a path of a file system.

    Parameters
    ----------
    name
        The store's.
    root
        The repository's.
    scans
        What was scanned in other stores, by content address.
    """

    how = "every object's content, whatever its name, and the run cache"

    def __init__(self, name: str, root: Path, scans: Scans | None = None) -> None:
        self.name = name
        self.root = root
        self.unread: dict[str, str] = {}
        self.partly: Counter[str] = Counter()
        self.scans = Scans() if scans is None else scans
        self.present: set[str] = set()
        """Lists of folders' files that the latest search met."""

    def search(self, wanted: Asked) -> Iterator[Hit]:
        """Find objects that hold samples; an item is an object's MD5, or a path below the store's.

        What was scanned under the same address, in another store too, is not read again. An object that
        cannot be read is told in ``unread``.

        Raises
        ------
        UnsearchableError
            If the store can never be searched.
        UnavailableError
            If it does not answer.
        """
        self.unread, self.partly, sized = {}, Counter(), self._sized()
        sought = sought_of(wanted)
        self.present = {item for path in sized if (item := self._item(path)).endswith(".dir")}
        for path, size in sized.items():
            item = self._item(path)
            if not self.scans.knows(item, size):
                try:
                    if item.startswith("runs/"):
                        self._note(item, find(self._run(path), sought))
                    else:
                        with self._local(path) as file:
                            self._scan(item, file, sought)
                except FileNotFoundError:  # somebody else deletes, too
                    continue
                except PermissionError as error:
                    self.unread[item] = error.strerror or str(error)
                    continue
            if found := self.scans.found.get(item):
                yield Hit(self.name, item, found.why, found.whole, weak=found.by_end)
            if item in self.scans.found:
                self.partly.update(map(str, self.scans.found[item].unread))

    def delete(self, item: str) -> None:
        """Delete an object, or a file such as an entry of the run cache; quiet if it is gone.

        Files of the workspace that are hard links to an object stay.
        """
        for path in [f"{at}{item[:2]}/{item[2:]}" for at in LAYOUTS] if OID.fullmatch(item) else [item]:
            self._remove(path)

    def runs(self) -> dict[str, bytes]:
        """Entries of the run cache by path below the store's; each is as ``dvc.lock`` has a stage.

        Each is read once: its path is the address of its content.
        """
        found = {}
        for path in self._paths("runs"):
            with suppress(FileNotFoundError, PermissionError):
                found[self._relative(path)] = self._run(path)
        return found

    def _run(self, path: str) -> bytes:
        known = self.scans.runs.setdefault(self.name, {})
        if (item := self._relative(path)) not in known:
            with self._local(path) as file:
                known[item] = file.read_bytes()
        return known[item]

    def has(self, md5: str) -> bool:
        """Whether an object is there."""
        fs, root = self._place
        with self._answering():
            return any(fs.exists(fs.join(root, layout, md5[:2], md5[2:])) for layout in LAYOUTS)

    def read(self, md5: str) -> bytes:
        """Return an object's content.

        Raises
        ------
        FileNotFoundError
            If it is not there.
        """
        fs, root = self._place
        for layout in LAYOUTS:
            with suppress(FileNotFoundError), self._local(fs.join(root, layout, md5[:2], md5[2:])) as file:
                return file.read_bytes()
        raise FileNotFoundError(md5)

    def files_of(self, md5: str) -> dict[str, str]:
        """MD5 by path of the files that a folder's list names.

        Raises
        ------
        FileNotFoundError
            If the list is not there.
        ValueError
            If it is damaged.
        """
        if md5 not in self.scans.lists:
            self.scans.lists[md5] = _listed(self.read(md5))
        return self.scans.lists[md5]

    def put(self, content: bytes, md5: str) -> None:
        """Store an object, unless it is there."""
        fs, root = self._place
        with self._answering():
            if not self.has(md5):
                path = fs.join(root, LAYOUTS[0], md5[:2], md5[2:])
                fs.makedirs(fs.parent(path), exist_ok=True)
                with temporary_folder(self.root) as folder:
                    (folder / "object").write_bytes(content)
                    fs.put_file(str(folder / "object"), f"{path}.part")
                    fs.move(f"{path}.part", path)

    def _scan(self, item: str, file: Path, wanted: Asked) -> None:
        found = find(file, wanted)
        addressed = OID.fullmatch(item) is not None
        if item.endswith(".dir"):
            with suppress(ValueError):
                self.scans.lists[item] = _listed(file.read_bytes())
        self._note(item, found)
        if addressed and digest(file) == bare(item):  # a damaged object has an address that is not its own
            self.scans.sizes[item] = file.stat().st_size

    def _note(self, item: str, found: Found) -> None:
        if found or found.unread:
            self.scans.found[item] = found
        else:
            self.scans.found.pop(item, None)

    def _open(self) -> tuple[Any, str]:
        """Return one of DVC's file systems, and the path in it; asked for when the store is used first."""
        raise NotImplementedError

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return self._open()

    def _paths(self, below: str = "") -> list[str]:
        fs, root = self._place
        with self._answering():
            found = list(fs.find(fs.join(root, below) if below else root))
        return sorted(path for path in found if OURS.match(self._relative(path)))

    def _sized(self) -> dict[str, int | None]:
        """All paths, with their sizes where a list of them tells these."""
        fs, root = self._place
        if fs.protocol != "local":
            with self._answering(), suppress(AttributeError, TypeError, NotImplementedError):
                found = fs.fs.find(root, detail=True)
                known = {f"/{path.lstrip('/')}": info.get("size") for path, info in found.items()}
                return {path: known.get(f"/{path.lstrip('/')}") for path in self._paths()}
        sizes: dict[str, int | None] = {}
        for path in self._paths():
            with suppress(OSError):
                sizes[path] = Path(path).stat().st_size if fs.protocol == "local" else None
        return sizes

    def _relative(self, path: str) -> str:
        fs, root = self._place
        return PurePosixPath(*fs.relparts(path, root)).as_posix()

    def _item(self, path: str) -> str:
        relative = self._relative(path)
        match = OBJECT.fullmatch(relative)
        return "".join(match.groups()) if match else relative

    def _remove(self, relative: str) -> None:
        fs, root = self._place
        path = fs.join(root, *relative.split("/"))
        with suppress(FileNotFoundError), self._answering():
            fs.remove(path)
        if relative.startswith("runs/") and fs.protocol == "local":
            with suppress(OSError):  # it holds another entry; an empty folder makes `dvc repro` fail
                Path(path).parent.rmdir()

    @contextmanager
    def _local(self, path: str) -> Iterator[Path]:
        fs, _ = self._place
        if fs.protocol == "local":
            yield Path(path)
            return
        with temporary_folder(self.root) as folder:
            with self._answering():
                fs.get_file(path, str(folder / "object"))
            yield folder / "object"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn whatever a storage raises that does not answer into one kind of error."""
        try:
            yield
        except (FileNotFoundError, PermissionError, AttributeError, TypeError, NotImplementedError):
            raise
        except ExpungeError:
            raise
        except Exception as error:  # each kind of storage has errors of its own
            raise UnavailableError(f"{self.name} does not answer: {_first_line(error)}") from error


class DvcCache(Objects):
    """The local cache of the repository at ``root``, wherever DVC's settings put it."""

    def __init__(self, root: Path, scans: Scans | None = None) -> None:
        super().__init__("DVC cache", root, scans)

    @property
    def private(self) -> bool:
        """Whether it lies in the repository, so that no other project writes to it."""
        return Path(self._place[1]).resolve().is_relative_to(self.root.resolve())

    def size_of(self, md5: str) -> int:
        """Size of an object; 0 if it is not there."""
        fs, root = self._place
        paths = (Path(fs.join(root, layout, md5[:2], md5[2:])) for layout in LAYOUTS)
        return next((path.stat().st_size for path in paths if path.exists()), 0)

    def add(self, file: Path) -> str:
        """Put a file's content into the cache as DVC does it; return its MD5."""
        from dvc.fs import LocalFileSystem

        md5 = digest(file)
        with opened(self.root) as repo:
            repo.cache.local.add(str(file), LocalFileSystem(), md5)
            repo.cache.local.protect(repo.cache.local.oid_to_path(md5))
        return md5

    def add_list(self, files: dict[str, str]) -> str:
        """Put a list of a folder's files into the cache; return its MD5, with ``.dir``."""
        from dvc.fs import LocalFileSystem

        content, md5 = folder_list(files)
        with temporary_folder(self.root) as folder, opened(self.root) as repo:
            (folder / "list").write_bytes(content)
            repo.cache.local.add(str(folder / "list"), LocalFileSystem(), md5)
            repo.cache.local.protect(repo.cache.local.oid_to_path(md5))
        return md5

    def _open(self) -> tuple[Any, str]:
        with opened(self.root) as repo:
            return repo.cache.legacy.fs, repo.cache.legacy.path


class DvcRemote(Objects):
    """One of the remotes that are set up for the repository at ``root``."""

    how = (
        "every object, read once from the remote, and the run cache; "
        "versions that the storage itself keeps of deleted objects are not seen"
    )

    def __init__(self, root: Path, remote: str, scans: Scans | None = None) -> None:
        super().__init__(f"DVC remote {remote}", root, scans)
        self.remote = remote

    def _open(self) -> tuple[Any, str]:
        try:
            with opened(self.root, self.name) as repo:
                remote = repo.cloud.get_remote(self.remote)
        except UnavailableError:
            raise
        except ExpungeError as error:  # a plugin such as dvc-s3 is not there, or a setting is wrong
            raise UnsearchableError(str(error)) from None
        if not remote.fs.CAN_TRAVERSE or remote.worktree or remote.fs.version_aware:
            raise UnsearchableError(
                f"{self.name} cannot be searched: DVC does not list its objects, or keeps every version; "
                "delete the samples there with the tools of the storage"
            )
        with self._answering():
            if remote.fs.protocol == "local" and not Path(remote.path).is_dir():
                raise UnavailableError(
                    f"{self.name} does not answer: {remote.path} is no folder; "
                    "mount it, or make it if nothing was ever pushed there"
                )
        return remote.fs, remote.path


class DvcState(Folder):
    """What DVC remembers of the files that it hashed, by path; it lies outside the repository."""

    name = "DVC state"
    how = "every file's path and content; what is found there is deleted as a whole, for DVC makes it anew"

    def __init__(self, root: Path) -> None:
        with opened(root) as repo:
            super().__init__(self.name, Path(repo.site_cache_dir))

    def delete(self, item: str) -> None:  # noqa: ARG002
        """Delete all of it: DVC's index, beside the item, has names in pieces that no search finds."""
        if self.path.exists():
            shutil.rmtree(self.path)


def remotes(root: Path, scans: Scans | None = None) -> list[DvcRemote]:
    """All remotes that are set up for the repository, in the order of their names."""
    with opened(root) as repo:
        return [DvcRemote(root, name, scans) for name in sorted(repo.config["remote"])]


@contextmanager
def opened(root: Path, what: str = "DVC") -> Iterator[Any]:
    """Open DVC's repository at ``root``.

    Raises
    ------
    ExpungeError
        If DVC cannot: a file of its own is damaged, or a plugin is not there; ``what`` begins the line.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield repo
    except (DvcException, ImportError) as error:  # ImportError: a plugin such as dvc-s3 is not there
        why = _first_line(error)
        advice = f"; {RESTORE_LOCK}" if "dvc.lock" in why else ""
        raise ExpungeError(f"{what} cannot be used: {why}{advice}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _listed(content: bytes) -> dict[str, str]:
    try:
        return {str(each["relpath"]): str(each["md5"]) for each in json.loads(content)}
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError("no list of a folder's files") from error


def folder_list(files: dict[str, str]) -> tuple[bytes, str]:
    """Return a folder's list as DVC writes it, and its MD5 with ``.dir``."""
    entries = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    content = json.dumps(entries, sort_keys=True).encode()
    return content, hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def bare(md5: str) -> str:
    """Return an MD5 without the ``.dir`` that tells a folder's list from a file."""
    return md5.removesuffix(".dir")
