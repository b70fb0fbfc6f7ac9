"""The places where samples can lie: each can be searched for them, and each can delete what was found.

A folder is any folder of files. DVC's cache and remotes hold objects without names: the MD5 of an object's
content says where it lies, ``files/md5/ab/cdef…`` (before DVC 3: ``ab/cdef…``), and that of a folder's list
of files ends with ``.dir``. Beside them, ``runs/`` holds the run cache: what a stage once made of what.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from tasks.core.errors import ExpungeError
from tasks.erasure.search import Wanted, find, named

OBJECT = re.compile(r"(?:files/md5/)?([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
OID = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
LAYOUTS = ("files/md5/", "")
OURS = re.compile(r"(files|runs|fs|[0-9a-f]{2})/")
"""Folders of DVC in a cache or remote; others beside them are somebody else's."""

SHARED = "shared with kept data"


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
    shared
        Whether kept data needs it: then it must not be deleted.
    """

    store: str
    item: str
    why: str
    shared: bool = False


class UnsearchableError(ExpungeError):
    """A store whose content cannot be listed, now or later."""


class Store(Protocol):
    """A place where samples can lie; ``how`` is one sentence that says how it is searched."""

    name: str
    how: str

    def search(self, wanted: Sequence[Wanted]) -> Iterator[Hit]:
        """Find what holds samples."""

    def delete(self, item: str) -> None:
        """Delete what a search found; what is gone already stays gone."""


class Folder:
    """All regular files below a folder; links are not followed, and Git's folders are left out.

    Parameters
    ----------
    name
        The store's.
    path
        A folder that need not exist.
    skip
        Folders below it that are not searched.
    """

    how = "every file's path and content, links not followed, archives not opened"

    def __init__(self, name: str, path: Path, *, skip: Sequence[str | Path] = ()) -> None:
        self.name = name
        self.path = path
        self._skip = {path / each for each in skip}

    def search(self, wanted: Sequence[Wanted]) -> Iterator[Hit]:
        """Find files whose path or content tells of samples; an item is a path.

        Raises
        ------
        OSError
            If a file or folder cannot be read.
        """
        for path in self._files():
            with suppress(FileNotFoundError):  # somebody else deletes, too
                found = find(path, wanted) if stat.S_ISREG(path.lstat().st_mode) else None
                if named(path.absolute().as_posix(), wanted):
                    yield Hit(self.name, str(path), "has the name of a sample")
                elif found:
                    yield Hit(self.name, str(path), found.why)

    def delete(self, item: str) -> None:
        """Delete a file; quiet if it is gone already."""
        Path(item).unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.path, onerror=_readable):
            folders[:] = [each for each in sorted(folders) if self._enters(Path(folder, each))]
            yield from (Path(folder, file) for file in sorted(files))

    def _enters(self, folder: Path) -> bool:
        return folder.name != ".git" and folder not in self._skip


def _readable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


class Objects:
    """DVC's objects and run cache below a path of a file system.

    Parameters
    ----------
    name
        The store's.
    root
        The repository's, whose ``.dvc`` files tell what is kept.
    """

    how = "every object's content, whatever its name, and the run cache, archives not opened"

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root

    def search(self, wanted: Sequence[Wanted]) -> Iterator[Hit]:
        """Find objects that hold samples; an item is an object's MD5, or a path below the store's.

        An image file of which kept data has a copy is one object with it, and reported as shared.

        Raises
        ------
        ExpungeError
            If the store cannot be reached, or what is kept cannot be told.
        """
        kept: frozenset[str] | None = None
        for path in self._paths():
            with suppress(FileNotFoundError):
                with self._local(path) as file:
                    found = find(file, wanted)
                if not found:
                    continue
                if found.whole and kept is None:
                    kept = kept_objects(self.root, wanted)
                item = self._item(path)
                shared = found.whole and item in (kept or ())
                yield Hit(self.name, item, SHARED if shared else found.why, shared)

    def delete(self, item: str) -> None:
        """Delete an object and what the run cache says of it, or any other file; quiet if it is gone.

        Files of the workspace that are hard links to an object stay.
        """
        if not OID.fullmatch(item):
            self._remove(item)
            return
        for layout in LAYOUTS:
            self._remove(f"{layout}{item[:2]}/{item[2:]}")
        for run in self._runs_of.get(bare(item), ()):
            self._remove(run)

    def runs(self) -> Iterator[bytes]:
        """Entries of the run cache, as the text of ``dvc.lock`` has a stage."""
        yield from self._runs.values()

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

    def _open(self) -> tuple[Any, str]:
        """Return one of DVC's file systems, and the path in it; asked for when the store is used first."""
        raise NotImplementedError

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return self._open()

    @cached_property
    def _runs(self) -> dict[str, bytes]:
        found = {}
        for path in self._paths("runs"):
            with suppress(FileNotFoundError), self._local(path) as file:
                found[self._relative(path)] = file.read_bytes()
        return found

    @cached_property
    def _runs_of(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path, text in self._runs.items():
            for md5 in {bare(each) for each in OID.findall(text.decode(errors="replace"))}:
                found.setdefault(md5, []).append(path)
        return found

    def _paths(self, below: str = "") -> list[str]:
        fs, root = self._place
        found = fs.find(fs.join(root, below) if below else root)
        return sorted(path for path in found if OURS.match(self._relative(path)))

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
        with suppress(FileNotFoundError):
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
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            fs.get_file(path, str(Path(folder, "object")))
            yield Path(folder, "object")


class DvcCache(Objects):
    """The local cache of the repository at ``root``, wherever DVC's settings put it."""

    def __init__(self, root: Path) -> None:
        super().__init__("DVC cache", root)

    def _open(self) -> tuple[Any, str]:
        with _opened(self.root) as repo:
            return repo.cache.legacy.fs, repo.cache.legacy.path


class DvcRemote(Objects):
    """One of the remotes that are set up for the repository at ``root``."""

    how = (
        "every object, read once from the remote, and the run cache, archives not opened; "
        "versions that the storage itself keeps of deleted objects are not seen"
    )

    def __init__(self, root: Path, remote: str) -> None:
        super().__init__(f"DVC remote {remote}", root)
        self._remote = remote

    def why_unsearchable(self) -> str | None:
        """Why samples can never be found there; ``None`` if they can."""
        try:
            self._place  # noqa: B018
        except UnsearchableError as error:
            return str(error)
        return None

    def _open(self) -> tuple[Any, str]:
        with _opened(self.root, self.name) as repo:
            remote = repo.cloud.get_remote(self._remote)
        if not remote.fs.CAN_TRAVERSE or remote.worktree or remote.fs.version_aware:
            raise UnsearchableError(
                f"{self.name} cannot be searched: DVC does not list its objects, or keeps every version; "
                "delete the samples there with the tools of the storage"
            )
        return remote.fs, remote.path


class DvcState(Folder):
    """What DVC remembers of the files that it hashed, by path; it lies outside the repository."""

    how = "every file's path and content; what is found there is deleted as a whole, for DVC makes it anew"

    def __init__(self, root: Path) -> None:
        with _opened(root) as repo:
            super().__init__("DVC state", Path(repo.site_cache_dir))

    def delete(self, item: str) -> None:  # noqa: ARG002
        """Delete all of it: DVC's index, beside the item, has names in pieces that no search finds."""
        if self.path.exists():
            shutil.rmtree(self.path)


def remotes(root: Path) -> list[DvcRemote]:
    """All remotes that are set up for the repository, in the order of their names."""
    with _opened(root) as repo:
        return [DvcRemote(root, name) for name in sorted(repo.config["remote"])]


@contextmanager
def _opened(root: Path, what: str = "DVC") -> Iterator[Any]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            yield repo
    except (DvcException, ImportError) as error:  # ImportError: a plugin such as dvc-s3 is not there
        raise ExpungeError(f"{what} cannot be used: {str(error).splitlines()[0]}") from None


def kept_objects(root: Path, wanted: Sequence[Wanted]) -> frozenset[str]:
    """MD5s of the files that the ``.dvc`` files of the working tree name, other than the samples.

    Raises
    ------
    ExpungeError
        If a ``.dvc`` file is damaged, or the list of a folder's files is not in the cache.
    """
    cache = DvcCache(root)
    files = (entry for dvc_file in _dvc_files(root) for entry in _entries(dvc_file, cache))
    return frozenset(md5 for path, md5 in files if not named(path, wanted))


def _dvc_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [each for each in folders if each not in {".git", ".dvc"}]
        yield from (Path(folder, file) for file in files if file.endswith(".dvc"))


def _entries(dvc_file: Path, cache: DvcCache) -> Iterator[tuple[str, str]]:
    """Path and MD5 of every file that a ``.dvc`` file names, those of a folder one by one."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        for out in YAML(typ="safe").load(dvc_file)["outs"]:
            path, md5 = f"{dvc_file.parent.as_posix()}/{out['path']}", str(out["md5"])
            if md5.endswith(".dir"):
                yield from (
                    (f"{path}/{each['relpath']}", each["md5"]) for each in json.loads(cache.read(md5))
                )
            else:
                yield path, md5
    except FileNotFoundError:
        raise ExpungeError(f"{dvc_file}: its list of files is not in the cache; get it: dvc fetch") from None
    except (YAMLError, ValueError, KeyError, TypeError):
        raise ExpungeError(f"{dvc_file}, or its list of files in the cache, is damaged; restore it") from None


def bare(md5: str) -> str:
    """Return an MD5 without the ``.dir`` that tells a folder's list from a file."""
    return md5.removesuffix(".dir")
