"""Folders of image files: ``train/<class>/…``, and if there are any, the same of ``val`` and ``test``."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tasks.core import dvc_cache
from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.core.params import Split
from tasks.datasets import register
from tasks.datasets._reading import subjects as whose
from tasks.datasets._reading import tiny_imagenet
from tasks.datasets._reading.below import refuse_escaping
from tasks.datasets._reading.decode import Decoder
from tasks.datasets._reading.passed_over import kind_of
from tasks.datasets._reading.still import Decoding
from tasks.samples.check import PartlyErased, is_plain
from tasks.samples.image_set import ImageSet

log = logging.getLogger(__name__)

VAL = ("val", "valid", "validation")
"""Names that the folder of the validation part may have."""

LAYOUT = "train/<class>/… is needed, and if wanted test/<class>/… and val/<class>/…"
EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff",
    ".avif", ".heic", ".heif",
)  # fmt: skip
LEAVES = "link that leaves the folder"
BROKEN = "broken link"
REWRITTEN = (".csv", ".txt")
"""Ends of the names of files that :func:`remove` writes anew without the erased, instead of deleting them."""

MARK = ".expunge-erased"
"""Marks a class folder whose images were all erased. The class stays, so that class numbers stay."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a walk met, as POSIX paths below the root; ``unusable`` maps a path to what is wrong.

    ``passed_over``: why files and folders were passed over, one entry each.
    """

    folders: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)


@register
def image_folder(path: Path, split: Split) -> ImageSet:
    """Read every image below ``path/train``, ``path/val`` and ``path/test``, once.

    Classes are the folders in ``train``, sorted by name; folders below a class belong to it. A sample's
    id is the file's path below ``path`` with forward slashes, e.g. ``train/cat/001.png``. ``val`` may also be
    called ``valid`` or ``validation``; it and ``test`` may be missing. In Tiny-ImageNet's layout, the classes
    of ``val`` are those in its ``val_annotations.txt``, and ``test``, which has none, is passed over.

    Whose the images are stands in ``subjects.csv`` beside ``train``, or in the table ``split.subject``.

    Raises
    ------
    ExpungeError
        If ``train`` is missing, a class is empty though nothing was erased, ``test`` or ``val`` has a class
        that ``train`` lacks, or any file cannot be used: no image, damaged, a broken link, or a link that
        leaves ``path`` and does not lead into DVC's cache. All such files are counted and the first named.
    """
    val_labels = tiny_imagenet.labels(path)
    found = _walk(path, with_test=val_labels is None)
    class_of = {
        name: val_labels.get(name) if _is_val(name) and val_labels else _class_of(name)
        for name in found.files
    }
    classes = _classes(path, found, flat_val=val_labels is not None)
    _tell(path, found, unlabelled_test=val_labels is not None)
    files = sorted(found.files)
    decoder = Decoder(len(files), Decoding.of(split), path)
    for name, reason in sorted(found.unusable.items()):
        decoder.refuse(name, reason)
    for name in files:
        decoder.add(f"{path}/{name}", name)
    number = {name: index for index, name in enumerate(classes)}
    for name in files:
        if class_of[name] not in number:
            decoder.refuse(name, "val_annotations.txt gives it no class that train has")
    images = decoder.finish()
    trained = {_class_of(name) for name in files if name.startswith("train/")}
    is_val = np.array([_is_val(name) for name in files])
    return PartlyErased(
        images=images,
        labels=np.array([number[str(class_of[name])] for name in files], dtype=np.int64),
        sample_ids=tuple(files),
        sources=tuple(files),
        is_test=np.array([name.startswith("test/") for name in files]),
        classes=classes,
        pictures=decoder.pictures,
        is_val=is_val if is_val.any() else None,
        subjects=_subjects_of(path, split, files),
        has_test=val_labels is None and (path / "test").is_dir(),
        erased_classes=frozenset(number[name] for name in classes if name not in trained),
    )


def _tell(path: Path, found: _Found, *, unlabelled_test: bool) -> None:
    counts = Counter(found.passed_over)
    if unlabelled_test and (path / "test").is_dir():
        counts["test, which has no classes"] = 1
    if counts:
        counted = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        log.warning("image_folder %s: passed over: %s", path, counted)


def _subjects_of(path: Path, split: Split, files: list[str]) -> tuple[tuple[str, ...], ...] | None:
    table = _subject_table(path, split)
    if table is None:
        return None
    subjects, strangers = whose.of_samples(files, whose.read_subjects(table))
    if strangers:
        log.warning("%s: %d of its paths are no images here", table, strangers)
    if nobodys := sum(not each for each in subjects):
        log.warning("%s: says of %d of %d images whose they are not", table, nobodys, len(files))
    return subjects


def _subject_table(path: Path, split: Split) -> Path | None:
    table = path / (split.subject or whose.FILE)
    return table if split.subject or table.exists() else None


def encoded(path: Path, references: Collection[str], split: Split) -> dict[str, bytes]:  # noqa: ARG001
    """Return the bytes of the files that ``references`` name, where they are there."""
    refuse_escaping(path, references)
    files = set(_walk(path).files)
    return {name: (path / name).read_bytes() for name in references if name in files}


def remove(path: Path, references: Collection[str], split: Split) -> list[Path]:
    """Delete the files that ``references`` name and return them; see :mod:`tasks.erasure.originals`.

    What a link leads to is deleted with it, unless it lies outside ``path`` or another sample needs it.
    A class folder that loses its last image is marked, so that the class stays. Their rows leave the table of
    subjects.

    Raises
    ------
    ExpungeError
        If a reference leaves ``path``, or a sample that is kept is a link to what would be deleted.
    """
    refuse_escaping(path, references)
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
    table = _subject_table(path, split)
    if table is not None and whose.without(table, references):
        deleted.append(table)
    return deleted + tiny_imagenet.forget(path, references)


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
        if not (path / folder / MARK).exists():
            write_text(path / folder / MARK, "")


def _to_delete(path: Path, name: str, needed: Collection[Path]) -> list[Path]:
    """Places of a file in the order of deletion: a link goes last, for without it the rest is not found."""
    root = path.resolve()
    behind = [place for place in _places(path / name)[1:] if place.is_relative_to(root)]
    return [*(place for place in reversed(behind) if place not in needed), path / name]


def _class_folder(relative: str) -> str:
    return "/".join(relative.split("/")[:2])


def _class_of(relative: str) -> str:
    return relative.split("/")[1]


def _is_val(relative: str) -> bool:
    return relative.partition("/")[0] in VAL


def _parts(root: Path, *, with_test: bool) -> list[str]:
    """Folders of the parts that there are."""
    if not (root / "train").is_dir():
        there = ", ".join(sorted(each.name for each in root.iterdir())[:5]) if root.is_dir() else ""
        found = f"found: {there or 'nothing'}" if root.is_dir() else "it is no folder"
        raise ExpungeError(f"{root} has no folder train ({found}); {LAYOUT}")
    val = [name for name in VAL if (root / name).is_dir()]
    if len(val) > 1:
        raise ExpungeError(f"{root} has {' and '.join(val)}: two validation parts; keep one")
    test = ["test"] if with_test and (root / "test").is_dir() else []
    return ["train", *val, *test]


def _walk(root: Path, *, with_test: bool = True) -> _Found:
    found = _Found()
    real_root = root.resolve()
    read: set[Path] = set()
    pending = _parts(root, with_test=with_test)
    while pending:
        folder = pending.pop()
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
        if kind := kind_of(entry.name):
            if entry.name != MARK:
                found.passed_over.append(kind)
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
        if not real.is_relative_to(real_root) and not dvc_cache.holds(real):
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


def _classes(path: Path, found: _Found, *, flat_val: bool) -> tuple[str, ...]:
    folders = sorted(name for name in found.folders if name.count("/") == 1)
    classes = tuple(_class_of(name) for name in folders if name.startswith("train/"))
    if not classes:
        raise ExpungeError(f"{path}/train has no class folders; {LAYOUT}")
    there = [*folders, *found.unusable]
    for part in ("test", *VAL):
        if (path / part).is_dir() and not flat_val and not any(each.startswith(part) for each in there):
            raise ExpungeError(f"{path}/{part} has no class folders; {LAYOUT}")
    if flat_val:
        folders = [name for name in folders if not _is_val(name)]
    unknown = [name for name in folders if _class_of(name) not in classes]
    if unknown:
        raise ExpungeError(
            f"{path}: {unknown[0]} is a class that train lacks; train has {', '.join(classes)}"
        )
    filled = _with_parents(found.files) | _with_parents(found.unusable)
    for name in folders:
        if name not in filled and not (path / name / MARK).exists():
            raise ExpungeError(f"{path}: class folder {name} holds no images")
    return classes


def _with_parents(names: Iterable[str]) -> set[str]:
    """Return the names, and the class folders that they lie in."""
    return {*names, *map(_class_folder, names)}
