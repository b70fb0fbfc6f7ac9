"""The encoded images as they lie in a source, and how they leave it.

A source that the project owns has two functions more in its file: ``encoded(path, references, split)`` and
``remove(path, references, split)``. A source without them is left as it is, and :func:`why_kept` says why.
Files that ``remove`` writes anew instead of deleting them have names that end in one of its ``REWRITTEN``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from tasks.core.params import Split
from tasks.core.plugins import built_in
from tasks.datasets import SOURCES

NOT_OURS = {
    "digits": "The originals are part of scikit-learn and stay there.",
    "cifar10": "The originals are in the public archive, which is used only while its checksum is right.",
}


def _part(source: str, name: str) -> Any:
    """Return what a source's file has under a name, or None."""
    return getattr(import_module(SOURCES.get(source).__module__), name, None)


def _function(source: str, name: str) -> Callable[[Path, Collection[str], Split], Any] | None:
    function: Callable[[Path, Collection[str], Split], Any] | None = _part(source, name)
    return function


OWNED = tuple(source for source in built_in("datasets") if _function(source, "remove"))
"""Sources of our own that originals can be taken out of."""


def why_kept(source: str) -> str | None:
    """Return in one sentence why the originals stay in a source, or None if they can be taken out."""
    if _function(source, "remove"):
        return None
    return NOT_OURS.get(
        source, f"The originals stay: tasks/datasets/{source}.py does not say how they are taken out."
    )


def rewritten(source: str) -> tuple[str, ...]:
    """Ends of the names of files that a source writes anew without the erased, instead of deleting them."""
    return tuple(_part(source, "REWRITTEN") or ())


def mark(source: str) -> str | None:
    """Name of the file by which a source says of itself what has left; None if it needs none."""
    name: str | None = _part(source, "MARK")
    return name


def encoded(split: Split, references: Collection[str]) -> dict[str, bytes]:
    """Return the encoded images as they lie in the source.

    Parameters
    ----------
    split
        Names the source, and where it lies.
    references
        Of samples, as in :attr:`tasks.datasets.ImageSet.sources`.

    Returns
    -------
    dict[str, bytes]
        By reference. References that the source does not have, or no longer has, are left out; so are
        all of a source that is not the project's own.

    Raises
    ------
    ExpungeError
        If there is no such source, it cannot be read, or a reference leaves ``path``.
    """
    function = _function(split.source, "encoded")
    images: dict[str, bytes] = function(Path(split.path), references, split) if function else {}
    return images


def further_pictures(contents: Iterable[bytes]) -> list[str]:
    """Fingerprints in hex by which encoded images are known beside that of the split.

    A large JPEG is known by an eighth of its size, which is quickly had; a copy of it in another format is
    known by all its pixels.
    """
    from tasks.datasets._reading.still import whole_fingerprint

    return [found.hex() for content in contents if (found := whole_fingerprint(content))]


def remove(split: Split, references: Collection[str]) -> list[Path]:
    """Take the originals out of the source; all other samples keep their references, ids and labels.

    Every file is changed whole or not at all. If the process dies half way, calling it again finishes
    the work; calling it once more changes nothing. Nobody else may write to ``path`` meanwhile.

    Parameters
    ----------
    split, references
        As for :func:`encoded`.

    Returns
    -------
    list[Path]
        The files that were deleted or rewritten; none for a source that is not the project's own.

    Raises
    ------
    ExpungeError
        As :func:`encoded`, or if a sample that is kept needs what would be deleted. Nothing was changed then.
    """
    function = _function(split.source, "remove")
    files: list[Path] = function(Path(split.path), references, split) if function else []
    return files
