"""Small copies that other programs lay beside an image, and what else is named after it.

A thumbnail has other pixels and other bytes than its image, so nothing but its name tells of whom it is.
There are two degrees. In some places a program lays copies of its own, under the very name of the image
(:func:`is_copy`): below the source, where the pipeline passes over them, they leave with the original. All
else that is named after an image (:func:`named_after`) may be an image of its own: it is reported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tasks.datasets._reading.passed_over import kind_of
from tasks.datasets.image_folder import EXTENSIONS
from tasks.erasure.found import Found
from tasks.erasure.scan import Scan
from tasks.erasure.sought import Sought

SYNOLOGY = "@eaDir"
"""A folder beside the image, with a folder for each that has its thumbnails."""

FOLDERS = frozenset(
    {
        ".thumbnails", ".thumbs", ".xvpics", ".pics", ".picasaoriginals", ".AppleDouble", ".@__thumb",
        "thumbnails", "thumbs", "_thumbs",
    }
)  # fmt: skip
"""Folders of thumbnails or earlier versions, each under the name of its image."""

DOUBLE = "._"
"""What the name of a file begins with in which macOS keeps the icon of another."""

ENDS = "|".join(re.escape(each) for each in EXTENSIONS)
LONGER = re.compile(rf"(?:{ENDS})(?=[._@~ -])", re.IGNORECASE)
BEFORE = re.compile(r"(?:thumb|thumbnail|tn|preview)[-_. ]+|default", re.IGNORECASE)
SIZED = re.compile(r"s\d+")
"""What QNAP writes before a name, which may begin with digits, too."""
AFTER = re.compile(r"(?P<stem>.+?)[-_. ]+(?:thumb|thumbnail|tn|preview|\d+x\d+)\.[^.]+", re.IGNORECASE)


def is_copy(path: str, sought: Sought) -> bool:
    """Whether a path is the place where a program lays its copy of a sample's image."""
    found = _named(set(_images_of_copy(path)), sought)
    return bool(found) and not found.by_end


def named_after(path: str, sought: Sought) -> Found:
    """Search for samples whose image a file is named after, as thumbnails are.

    As for a name itself, what is merely the end of a longer path is weak evidence.
    """
    return _named({*_images_of_copy(path), *_images_like(path)}, sought)


def passed_over(path: str) -> bool:
    """Whether the pipeline takes a file for no image, by its path below the source: it is nobody's sample."""
    return any(map(kind_of, PurePosixPath(path).parts))


def remove_copies(source: Path, sought: Sought) -> list[Path]:
    """Delete what goes with the originals below a source, and the folders that held nothing else."""
    found = list(_copies(source, sought))
    for path in found:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # it holds more
            path.parent.rmdir()
    return found


def _copies(source: Path, sought: Sought) -> Iterator[Path]:
    for folder, folders, files in os.walk(source):
        folders[:] = [each for each in sorted(folders) if each != ".git"]
        for path in (Path(folder, file) for file in sorted(files)):
            below = path.relative_to(source).as_posix()
            if passed_over(below) and is_copy(below, sought):
                yield path


def thumbnails_of(environ: Mapping[str, str]) -> Path:
    """Folder in which the user's desktop keeps thumbnails: each holds the address of its image as a text."""
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "thumbnails"


def _named(images: Collection[str], sought: Sought) -> Found:
    from tasks.erasure.formats.text import search_names

    scan = Scan(sought, 0)
    if images:
        search_names({image.encode(errors="surrogateescape") for image in images}, scan)
    return scan.found


def _images_of_copy(path: str) -> Iterator[str]:
    """Paths of the images that a path is the place of a copy of."""
    parts = path.split("/")
    for number, part in enumerate(parts[:-1]):
        before, after = parts[:number], parts[number + 1 :]
        if part == SYNOLOGY:
            yield "/".join([*before, after[0].partition("@Syno")[0]])
        elif part in FOLDERS:  # a folder for each size may lie between
            yield from ("/".join([*before, *after[start:]]) for start in range(len(after)))
    if parts[-1].startswith(DOUBLE):
        yield "/".join([*parts[:-1], parts[-1].removeprefix(DOUBLE)])


def _images_like(path: str) -> Iterator[str]:
    """Paths of the images that a file may be named after."""
    for place in {path, *_images_of_copy(path)}:
        folder, slash, name = place.rpartition("/")
        for image in _names_in(name, in_folder=place != path):
            yield f"{folder}{slash}{image}"


def _names_in(name: str, *, in_folder: bool) -> Iterator[str]:
    yield from (name[: match.end()] for match in LONGER.finditer(name))
    if match := BEFORE.match(name):
        yield name[match.end() :]
    if in_folder and (match := SIZED.match(name)):
        yield from (name[start:] for start in range(2, match.end() + 1))
    stems = [match["stem"]] if (match := AFTER.fullmatch(name)) else []
    stems += [name.rpartition(".")[0]] if in_folder and "." in name else []
    yield from (
        f"{stem}{case(end)}" for stem in stems for end in EXTENSIONS for case in (str.lower, str.upper)
    )
