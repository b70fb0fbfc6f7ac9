"""Folders of image files: ``train/<class>/…`` and ``test/<class>/…``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.datasets import ImageSet, register
from tasks.datasets._check import is_plain
from tasks.datasets._decode import Decoder
from tasks.errors import ExpungeError

PARTS = ("train", "test")
LAYOUT = "train/<class>/… and test/<class>/… are needed"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
LEAVES = "link that leaves the folder"
LITTER = frozenset({"Thumbs.db", "desktop.ini"})
"""Files that file managers leave behind; like hidden ones they are passed over."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a walk met, as POSIX paths below the root; ``unusable`` maps a path to what is wrong."""

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)


@register
def image_folder(path: Path, resize: int | None) -> ImageSet:
    """Read every image below ``path/train`` and ``path/test``, once.

    Classes are the folders in ``train``, sorted by name; folders below a class belong to it. A sample's
    id is the file's path below ``path`` with forward slashes, e.g. ``train/cat/001.png``.

    Raises
    ------
    ExpungeError
        If a folder is missing or empty, ``test`` has a class that ``train`` lacks, or any file cannot be
        used: no image, damaged, a broken link, or a link that leaves ``path``. All such files are counted
        and the first are named.
    """
    found = _walk(path)
    classes = _classes(path, found)
    files = sorted(found.files)
    decoder = Decoder(len(files), resize, path)
    for name, reason in sorted(found.unusable.items()):
        decoder.refuse(name, reason)
    for name in files:
        try:
            with (path / name).open("rb") as file:
                decoder.add(file, name)
        except OSError as error:
            decoder.refuse(name, str(error.strerror))
    number = {name: index for index, name in enumerate(classes)}
    return ImageSet(
        images=decoder.finish(),
        labels=np.array([number[_class_of(name)] for name in files], dtype=np.int64),
        sample_ids=tuple(files),
        sources=tuple(files),
        is_test=np.array([name.startswith("test/") for name in files]),
        classes=classes,
    )


def _class_of(relative: str) -> str:
    return relative.split("/")[1]


def _walk(root: Path) -> _Found:
    found = _Found()
    real_root = root.resolve()
    read: set[Path] = set()
    pending = list(PARTS)
    while pending:
        folder = pending.pop()
        if not (root / folder).is_dir():
            raise ExpungeError(f"{root} has no folder {folder}; {LAYOUT}")
        real = (root / folder).resolve()
        if not real.is_relative_to(real_root):
            found.unusable[folder] = LEAVES
        elif real in read:  # a link to its own parent would never end
            found.unusable[folder] = "link to a folder that is read already"
        else:
            read.add(real)
            pending += _sort_entries(root, real_root, folder, found)
    return found


def _sort_entries(root: Path, real_root: Path, folder: str, found: _Found) -> list[str]:
    """Enter what lies in ``folder`` into ``found``; return the folders to walk next."""
    try:
        with os.scandir(root / folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        found.unusable[folder] = str(error.strerror)
        return []
    folders = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name in LITTER:
            continue
        relative = f"{folder}/{entry.name}"
        problem = _problem(entry, real_root, is_in_class="/" in folder)
        if problem:
            found.unusable[relative] = problem
        elif entry.is_dir():
            folders.append(relative)
        else:
            found.files.append(relative)
    found.folders.extend(folders)
    return folders


def _problem(entry: os.DirEntry[str], real_root: Path, *, is_in_class: bool) -> str | None:
    if not is_plain(entry.name):
        return "name is not UTF-8 or holds control characters"
    if entry.is_symlink():
        try:
            real = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a link to itself
            return "broken link"
        if not real.is_relative_to(real_root):
            return LEAVES
    if entry.is_dir():
        return None
    if not is_in_class:
        return "lies outside a class folder"
    if not entry.is_file():
        return "neither a file nor a folder"
    if not entry.name.lower().endswith(EXTENSIONS):
        return f"not an image file; known are {' '.join(EXTENSIONS)}"
    return None


def _classes(path: Path, found: _Found) -> tuple[str, ...]:
    folders = sorted(name for name in found.folders if name.count("/") == 1)
    classes = tuple(_class_of(name) for name in folders if name.startswith("train/"))
    if not classes:
        raise ExpungeError(f"{path}/train has no class folders; {LAYOUT}")
    unknown = [name for name in folders if _class_of(name) not in classes]
    if unknown:
        raise ExpungeError(
            f"{path}: {unknown[0]} is a class that train lacks; train has {', '.join(classes)}"
        )
    filled = {name.rpartition("/")[0] for name in found.files} | set(found.unusable)
    for name in folders:
        if not any(other == name or other.startswith(f"{name}/") for other in filled):
            raise ExpungeError(f"{path}: class folder {name} holds no images")
    return classes
