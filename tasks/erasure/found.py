"""What a search of a content found, and what it could not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Unread(StrEnum):
    """Why a part of a content was not searched; the words name no file, so they may stand in any record."""

    SPECIAL = "link, pipe or device, never opened"
    UNREADABLE = "cannot be read"
    CHANGED = "changed while it was read"
    CUT = "archive or compressed file, not searched whole: it unpacks to too much"
    DEEP = "archive in archives, too deep"
    ENCRYPTED = "encrypted archive"
    UNKNOWN = "format that is not opened"
    DAMAGED = "damaged, searched as far as it can be read"
    PICTURE = "image that cannot be decoded"
    LARGE = "image or value that is too large to be decoded"
    THUMBNAILS = "collection of thumbnails (Thumbs.db), or old Office file, of which only the texts are read"
    FLOATS = "array of standardised images, not recognisable"
    LEGACY = "old PyTorch file, of which only the texts are read"


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the wanted names, pixels, encoded images and models a content holds; false if none.

    Attributes
    ----------
    names
        Different names that were met as they are.
    pixels
        Different images that were met as pixels, whatever they were encoded in.
    files
        Different encoded images, byte by byte.
    weights
        Models that had learned samples.
    whole
        The content as a whole is the image of a sample, and nothing else: its file, or the same picture in
        another encoding.
    weak
        Further names that were met only as the end of a longer path, or that are mere numbers:
        ``x/cat/1.png`` may be a file of somebody else's, and ``17`` anything.
    unread
        What was not searched, and how often. It is no part of what was found.
    """

    names: int = 0
    pixels: int = 0
    files: int = 0
    weights: int = 0
    whole: bool = False
    weak: int = 0
    unread: Mapping[Unread, int] = field(default_factory=dict, compare=False)

    def __bool__(self) -> bool:
        return bool(self.names or self.weak or self.pixels or self.files or self.weights)

    @property
    def by_end(self) -> bool:
        """Whether nothing but ends of longer paths, or numbers, was found: no reason to delete anything."""
        return bool(self.weak) and not (self.names or self.pixels or self.files or self.weights)

    @property
    def why(self) -> str:
        """What was found, in words."""
        if self.whole:
            return (
                "is the image file of a sample" if self.files else "is the picture of a sample, encoded anew"
            )
        if self.weights:
            return "holds the weights of a model that had learned samples"
        if self.by_end:
            return f"may name samples: {self.weak} paths that end like their names, or numbers"
        counts = {"names": self.names, "pixels": self.pixels, "image files": self.files}
        return "holds " + ", ".join(f"{what} of samples: {count}" for what, count in counts.items() if count)
