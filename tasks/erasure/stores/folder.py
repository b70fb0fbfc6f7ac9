"""Any folder of files."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tasks.erasure.found import Found, Unread
from tasks.erasure.search import Asked, find, named, sought_of
from tasks.erasure.side_files import is_copy, named_after
from tasks.erasure.sought import Sought
from tasks.erasure.stores import Hit

BESIDE = "is named after the image of a sample, as thumbnails are"


class Folder:
    """All regular files below a folder; links are not followed, and Git's folders are left out.

    Parameters
    ----------
    name
        The store's.
    path
        A folder that need not exist.
    skip
        Files and folders below it that are not searched.
    only
        If given, the names of those below it that are searched.
    """

    how = "every file's path and content, links not followed"

    def __init__(
        self, name: str, path: Path, *, skip: Sequence[str | Path] = (), only: Collection[str] = ()
    ) -> None:
        self.name = name
        self.path = path
        self.unread: dict[str, str] = {}
        self.partly: Counter[str] = Counter()
        self._skip = {path / each for each in skip}
        self._only = frozenset(only)

    def search(self, wanted: Asked) -> Iterator[Hit]:
        """Find files whose path or content tells of samples; an item is a path.

        What cannot be read is told in ``unread``, and the search goes on.
        """
        self.unread, self.partly, sought = {}, Counter(), sought_of(wanted)
        for path in self._files():
            try:
                by_name, beside = self._by(named, path, sought), self._by(named_after, path, sought)
                found = find(path, sought) if stat.S_ISREG(path.lstat().st_mode) else Found()
                if found.unread.get(Unread.UNREADABLE):
                    self.unread[str(path)] = str(Unread.UNREADABLE)
                self.partly.update(str(kind) for kind in found.unread if kind is not Unread.UNREADABLE)
                if by_name and not by_name.by_end:
                    yield Hit(self.name, str(path), "has the name of a sample")
                elif beside and not beside.by_end:
                    yield Hit(self.name, str(path), BESIDE, copy=is_copy(path.absolute().as_posix(), sought))
                elif found:
                    yield Hit(self.name, str(path), found.why, found.whole, weak=found.by_end)
                elif by_name or beside:
                    yield Hit(self.name, str(path), "has a name that ends like a sample's", weak=True)
            except FileNotFoundError:  # somebody else deletes, too
                continue
            except OSError as error:
                self._cannot_read(error, path)

    def _by(self, told: Callable[[str, Sought], Found], path: Path, sought: Sought) -> Found:
        """Search a path; below the folder itself it may be a name as it is."""
        found = told(path.absolute().as_posix(), sought)
        return told(path.relative_to(self.path).as_posix(), sought) if found.by_end else found

    def delete(self, item: str) -> None:
        """Delete a file; quiet if it is gone already."""
        Path(item).unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.path, onerror=self._cannot_read):
            folders[:] = [each for each in sorted(folders) if self._enters(Path(folder, each))]
            yield from (path for file in sorted(files) if self._enters(path := Path(folder, file)))

    def _enters(self, path: Path) -> bool:
        if self._only and path.parent == self.path and path.name not in self._only:
            return False
        return path.name != ".git" and path not in self._skip

    def _cannot_read(self, error: OSError, path: Path | None = None) -> None:
        if not isinstance(error, FileNotFoundError):
            self.unread[str(path or error.filename)] = error.strerror or str(error)
