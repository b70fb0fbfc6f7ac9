"""The source's ``.dvc`` files follow what a purge does to the source, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.core.files import digest
from tasks.erasure import originals
from tasks.erasure.ownership import Ownership
from tasks.erasure.pointers import Pointer, is_plain, renewed, rewrite
from tasks.erasure.stores.dvc import DvcCache


def pointers_of_source(ownership: Ownership) -> list[Pointer]:
    """Return the pointers of the working tree that track the source, a part of it, or a folder around it."""
    return [pointer for pointer in ownership.pointers.of(ownership.source) if pointer.current]


def bring_up_to_date(ownership: Ownership, cache: DvcCache, pointer: Pointer, source: str) -> bool:
    """Let a pointer name the source as it is without the erased samples; return whether it changed.

    The new list, and files that were written anew, are in the cache before the pointer names them.

    Parameters
    ----------
    source
        As ``split.source``.

    Raises
    ------
    LookupError
        If this cannot be done here: the old list is in no store, or DVC keeps the data in another way.
    """
    root = ownership.root
    if not is_plain(root, pointer):
        raise LookupError(pointer.file)
    if not pointer.md5.endswith(".dir"):
        return _bring_file(ownership, cache, pointer, rewritten=originals.rewritten(source))
    files = ownership.files_of(pointer.md5)
    if files is None:
        raise LookupError(pointer.file)
    found, new = renewed(
        root, pointer, files, ownership.source, ownership.is_erased, rewritten=originals.rewritten(source)
    )
    for mark in _marks(root / ownership.source, originals.mark(source)):
        name = os.path.relpath(mark, root / pointer.path)
        if not name.startswith("..") and found.get(name) != (md5 := digest(mark)):
            found[name] = md5
            new.append(mark)
    if found == files:
        return False
    for path in new:
        cache.add(path)
    md5 = cache.add_list(found)
    rewrite(root, pointer, md5, size=_size(root / pointer.path, found, cache), files=len(found))
    return True


def _marks(source: Path, name: str | None) -> list[Path]:
    """Files by which the source says of itself what has left."""
    return sorted(source.rglob(name)) if name else []


def _bring_file(
    ownership: Ownership, cache: DvcCache, pointer: Pointer, *, rewritten: tuple[str, ...]
) -> bool:
    path = ownership.root / pointer.path
    inside = os.path.relpath(pointer.path, ownership.source)
    if not path.exists():
        if not ownership.is_erased(inside):
            return False
        (ownership.root / pointer.file).unlink()
        return True
    if not path.name.endswith(rewritten) or digest(path) == pointer.md5:
        return False
    rewrite(ownership.root, pointer, cache.add(path), size=path.stat().st_size, files=None)
    return True


def _size(folder: Path, files: dict[str, str], cache: DvcCache) -> int:
    """Bytes of a folder's files, each from the working tree, or else from the cache."""
    total = 0
    for name, md5 in files.items():
        try:
            total += (folder / name).stat().st_size
        except FileNotFoundError:
            total += cache.size_of(md5)
    return total
