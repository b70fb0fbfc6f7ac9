"""Folders of image files: ``train/<class>/…`` and ``test/<class>/…``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.datasets import register
from tasks.datasets._decode import Decoder
from tasks.samples.check import PartlyErased, is_plain
from tasks.samples.image_set import ImageSet

log = logging.getLogger(__name__)

PARTS = ("train", "test")
LAYOUT = "train/<class>/… and test/<class>/… are needed"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
LEAVES = "link that leaves the folder"
BROKEN = "broken link"
LITTER = frozenset(
    {
        "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "lost+found", "@eadir",
        "$recycle.bin", "system volume information",
    }
)  # fmt: skip
"""Files and folders that systems leave behind, in any case; they are passed over like hidden ones."""
ERASED = ".expunge-erased"
"""Marks a class folder whose images were all erased. The class stays, so that class numbers stay."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a walk met, as POSIX paths below the root; ``unusable`` maps a path to what is wrong.

    ``litter``: names of what systems have left behind.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    litter: list[str] = field(default_factory=list)


@register
def image_folder(path: Path, resize: int | None) -> ImageSet:
    """Read every image below ``path/train`` and ``path/test``, once.

    Classes are the folders in ``train``, sorted by name; folders below a class belong to it. A sample's
    id is the file's path below ``path`` with forward slashes, e.g. ``train/cat/001.png``.

    Raises
    ------
    ExpungeError
        If a folder is missing, or empty though nothing was erased, ``test`` has a class that ``train``
        lacks, or any file cannot be used: no image, damaged, a broken link, or a link that leaves ``path``.
        All such files are counted and the first are named.
    """
    found = _walk(path)
    classes = _classes(path, found)
    if found.litter:
        counted = ", ".join(f"{name} ({count})" for name, count in sorted(Counter(found.litter).items()))
        log.warning("image_folder %s: passed over: %s", path, counted)
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
    trained = {_class_of(name) for name in files if name.startswith("train/")}
    return PartlyErased(
        images=decoder.finish(),
        labels=np.array([number[_class_of(name)] for name in files], dtype=np.int64),
        sample_ids=tuple(files),
        sources=tuple(files),
        is_test=np.array([name.startswith("test/") for name in files]),
        classes=classes,
        pictures=decoder.pictures,
        erased_classes=frozenset(number[name] for name in classes if name not in trained),
    )


def encoded(path: Path, references: Collection[str]) -> dict[str, bytes]:
    """Return the bytes of the files that ``references`` name, where they are there."""
    _refuse_escaping(path, references)
    files = set(_walk(path).files)
    return {name: (path / name).read_bytes() for name in references if name in files}


def remove(path: Path, references: Collection[str]) -> list[Path]:
    """Delete the files that ``references`` name and return them; see :mod:`tasks.erasure.originals`.

    What a link leads to is deleted with it, unless it lies outside ``path`` or another sample needs it.
    A class folder that loses its last image is marked, so that the class stays.

    Raises
    ------
    ExpungeError
        If a reference leaves ``path``, or a sample that is kept is a link to what would be deleted.
    """
    _refuse_escaping(path, references)
    found = _walk(path)
    asked = set(references)
    # A link is broken if its deletion was interrupted.
    broken = [name for name, problem in found.unusable.items() if problem == BROKEN]
    leaving = sorted(asked.intersection([*found.files, *broken]))
    staying = [name for name in found.files if name not in asked]
    needed = {place: name for name in staying for place in _places(path / name)}
    _refuse_needed(path, leaving, needed)
    _mark_emptied(path, leaving, staying)
    deleted = []
    for name in leaving:
        for place in _to_delete(path, name, needed):
            with suppress(FileNotFoundError):
                place.unlink()
                deleted.append(place)
    if deleted:
        os.sync()  # a power cut must not bring them back
    return deleted


def _refuse_escaping(path: Path, references: Iterable[str]) -> None:
    for name in references:
        if name.startswith("/") or ".." in name.split("/"):
            raise ExpungeError(
                f"{path}: {name!a} leaves the folder; a path below it is right, such as train/cat/001.png"
            )


def _places(file: Path) -> list[Path]:
    """Where a file lies: its own place, and if that is a link, every place it leads to in turn."""
    places: list[Path] = []
    place = file
    while (place := place.parent.resolve() / place.name) not in places:
        places.append(place)
        if place.is_symlink():
            place = place.parent / place.readlink()
    return places


def _refuse_needed(path: Path, leaving: Iterable[str], needed: dict[Path, str]) -> None:
    for name in leaving:
        link = needed.get(_places(path / name)[0])
        if link is not None:
            raise ExpungeError(
                f"{path}: {name} cannot be erased while {link}, which is kept, is a link to it; "
                "put a copy in the place of the link"
            )


def _mark_emptied(path: Path, leaving: Iterable[str], staying: Iterable[str]) -> None:
    emptied = {_class_folder(name) for name in leaving} - {_class_folder(name) for name in staying}
    for folder in sorted(emptied):
        if not (path / folder / ERASED).exists():
            write_text(path / folder / ERASED, "")


def _to_delete(path: Path, name: str, needed: Collection[Path]) -> list[Path]:
    """Places of a file in the order of deletion: a link goes last, for without it the rest is not found."""
    root = path.resolve()
    behind = [place for place in _places(path / name)[1:] if place.is_relative_to(root)]
    return [*(place for place in reversed(behind) if place not in needed), path / name]


def _class_folder(relative: str) -> str:
    return "/".join(relative.split("/")[:2])


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
        if entry.name.startswith("."):
            continue
        if entry.name.casefold() in LITTER:
            found.litter.append(entry.name)
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
            return BROKEN
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
        if (
            not any(other == name or other.startswith(f"{name}/") for other in filled)
            and not (path / name / ERASED).exists()
        ):
            raise ExpungeError(f"{path}: class folder {name} holds no images")
    return classes
