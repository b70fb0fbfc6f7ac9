"""The ``.dvc`` files: the data sets that DVC tracks, in the working tree and in every commit.

A pointer names a file by its MD5, or a folder by that of its list. The list of the source's folder names
erased samples, so a purge makes it anew without them, and nothing else of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.files import digest, write_whole
from tasks.erasure import history

DAMAGED = (YAMLError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Pointer:
    """One output of a ``.dvc`` file.

    Attributes
    ----------
    file
        The ``.dvc`` file, below the repository's root.
    path
        What it tracks, below the root.
    md5
        Of that, with ``.dir`` for a folder.
    current
        Whether it stands in the working tree.
    elsewhere
        Whether another branch, a tag or a stash ends with it: work that goes on there needs it.
    head
        Whether the commit that is checked out has it: what was there when a purge began.
    """

    file: str
    path: str
    md5: str
    current: bool = False
    elsewhere: bool = False
    head: bool = False

    def tells_of(self, source: str) -> bool:
        """Whether it tracks the source, a part of it, or a folder around it."""
        return Path(self.path).is_relative_to(source) or Path(source).is_relative_to(self.path)


@dataclass
class Pointers:
    """All pointers, and the files that could not be read."""

    found: list[Pointer] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def of(self, source: str) -> list[Pointer]:
        """Return those that tell of the source."""
        return [pointer for pointer in self.found if pointer.tells_of(source)]


def below_root(root: Path, path: str) -> str:
    """Return a path as pointers have it: below the root, without slashes at its end; absolute if outside."""
    relative = Path(os.path.relpath(root / path, root))
    return (Path(path) if ".." in relative.parts and Path(path).is_absolute() else relative).as_posix()


def outside(root: Path, path: str) -> list[Path]:
    """Return the source's folder, all links resolved, if it lies outside of the checkout at ``root``."""
    source = (root / path).resolve()
    return [] if source.is_relative_to(root.resolve()) else [source]


def read_pointers(root: Path) -> Pointers:
    """Read the pointers of the working tree and of every commit that Git has.

    Raises
    ------
    ExpungeError
        If Git cannot be asked.
    """
    pointers = Pointers()
    for file in _in_working_tree(root):
        name = file.relative_to(root).as_posix()
        try:
            pointers.found += _parsed(name, file.read_bytes(), current=True)
        except (*DAMAGED, OSError):
            pointers.damaged.append(name)
    committed = history.ever("*.dvc", root)
    elsewhere, head = history.at_other_ends(".dvc", root), history.at("HEAD", ".dvc", root)
    contents = history.blobs(sorted({blob for _, blob in committed | elsewhere}), root)
    for name, blob in sorted(committed | elsewhere):
        try:
            found = _parsed(name, contents[blob])
        except DAMAGED:  # half a merge that somebody committed
            continue
        place = (name, blob)
        pointers.found += [replace(each, elsewhere=place in elsewhere, head=place in head) for each in found]
    return pointers


def rewrite(root: Path, pointer: Pointer, md5: str, *, size: int, files: int | None) -> None:
    """Let a pointer of the working tree name another content of what it tracks."""
    path, yaml = root / pointer.file, YAML()
    value = yaml.load(path.read_bytes())
    for out in value["outs"]:
        if str(out.get("md5")) == pointer.md5:
            out["md5"], out["size"] = md5, size
            if files is not None:
                out["nfiles"] = files
    with write_whole(path) as file:
        yaml.dump(value, file)


def is_plain(root: Path, pointer: Pointer) -> bool:
    """Whether it is as ``dvc add`` of DVC 3 makes it, so that it can be rewritten here."""
    value = YAML(typ="safe").load((root / pointer.file).read_bytes())
    return all(out.get("hash") == "md5" and "files" not in out for out in value["outs"])


def _parsed(name: str, content: bytes, **known: bool) -> list[Pointer]:
    value: Any = YAML(typ="safe").load(content)
    folder = (Path(name).parent / str(value.get("wdir", "."))).as_posix()
    return [
        Pointer(name, os.path.normpath(f"{folder}/{out['path']}"), str(out["md5"]), **known)
        for out in value["outs"]
        if out.get("md5")
    ]


def _in_working_tree(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [
            each
            for each in folders
            if each not in {".git", ".dvc"} and not is_environment(Path(folder, each))
        ]
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".dvc"))


def is_environment(folder: Path) -> bool:
    """Whether a folder is a virtual environment."""
    try:
        return (folder / "pyvenv.cfg").exists()
    except OSError:  # it may not be entered, and the walk passes over it too
        return False


def renewed(
    root: Path,
    pointer: Pointer,
    files: dict[str, str],
    source: str,
    gone: Callable[[str], bool],
    *,
    rewritten: tuple[str, ...],
) -> tuple[dict[str, str], list[Path]]:
    """Return the list of a tracked folder as it is without what was erased, and the files that are new in it.

    Only what a purge changes is taken over from the working tree: other files that are missing or different
    there stay as the old list has them.

    Parameters
    ----------
    files
        The old list.
    source
        Path of the source, below the root.
    gone
        Whether a file of the source was erased, by its path below that.
    rewritten
        Ends of the names of files that this source writes anew without the erased, instead of deleting them.
    """
    found, new = {}, []
    for name, md5 in files.items():
        whole = os.path.normpath(f"{pointer.path}/{name}")
        path = root / whole
        if not path.exists():
            ours = Path(whole).is_relative_to(source)
            if not (ours and gone(Path(whole).relative_to(source).as_posix())):
                found[name] = md5
        elif name.endswith(rewritten) and Path(whole).is_relative_to(source) and (now := digest(path)) != md5:
            found[name] = now
            new.append(path)
        else:
            found[name] = md5
    return found, new
