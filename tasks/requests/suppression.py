"""The list of what was erased, so that it never returns.

``data/requests/erased.txt`` is kept in Git. It names every erased sample by two keyed digests, of its id and
of its pixels, so it can be read by all and tells nothing. Whatever reads a source takes out what the
list names, whoever runs it and whatever for. The digests are made under a key of their own, which must be
wherever data is split; unlike a request's it is kept, for without it erased samples could come back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.requests.keys import KeyStore, reference

KEY = "erased"
"""Name of the key in the key store."""

HEAD = """\
# Samples that were erased and must not return: keyed digests of their ids and pixels.
# Written by expunge. Do not edit: a line that is taken out lets a sample back in.
"""

Line = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Erased:
    """The list, and the key to compare with it.

    Attributes
    ----------
    lines
        ``(kind, digest)``, kind ``id`` or ``pixels``, in the order in which they were added.
    """

    lines: tuple[Line, ...]

    @classmethod
    def read(cls, path: Path) -> Erased:
        """Read the list.

        Raises
        ------
        ExpungeError
            If the file is missing or holds a line that is none of the list's: what cannot be read
            cannot be kept out.
        """
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise ExpungeError(f"{path} is missing; restore it: git checkout -- {path}") from None
        except UnicodeDecodeError:
            raise ExpungeError(f"{path} is damaged; restore it: git checkout -- {path}") from None
        lines = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.startswith("#") or not line:
                continue
            kind, _, digest = line.partition(" ")
            if (
                kind not in {"id", "pixels"}
                or len(digest) != 64
                or not set(digest) <= set("0123456789abcdef")
            ):
                raise ExpungeError(f"{path}, line {number} is damaged; restore it: git checkout -- {path}")
            lines.append((kind, digest))
        return cls(tuple(lines))

    def write(self, path: Path) -> None:
        """Write the list whole."""
        write_text(path, HEAD + "".join(f"{kind} {digest}\n" for kind, digest in self.lines))

    def having(self, lines: Iterable[Line]) -> Erased:
        """Return the list with further lines; those that are there stay where they are."""
        return Erased(tuple(dict.fromkeys([*self.lines, *lines])))

    def kept(self, sample_ids: Sequence[str], images: NDArray[np.uint8], keys: KeyStore) -> NDArray[np.int64]:
        """Row numbers of the samples that the list does not name, ascending.

        Parameters
        ----------
        sample_ids
            N ids.
        images
            ``uint8 [N, C, H, W]``.
        keys
            Holds the list's key, which is asked for only if the list names something.

        Raises
        ------
        ExpungeError
            If the key is not there.
        """
        if not self.lines:
            return np.arange(len(sample_ids))
        if not keys.exists(KEY):
            raise ExpungeError(
                f"samples were erased, and {keys.folder} lacks the key that tells which; "
                f"copy {KEY}.key there, or set EXPUNGE_KEYS to the folder that has it"
            )
        key, known = keys.load(KEY), set(self.lines)
        rows = [
            row
            for row, (sample_id, image) in enumerate(zip(sample_ids, images, strict=True))
            if known.isdisjoint(digests(key, sample_id, image))
        ]
        return np.array(rows, dtype=np.int64)


def digests(key: bytes, sample_id: str, image: NDArray[np.uint8]) -> tuple[Line, Line]:
    """Return the two lines that name one sample."""
    return ("id", reference(key, "id", sample_id)), ("pixels", reference(key, "pixels", fingerprint(image)))


def fingerprint(image: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's shape and pixels, in hex; ``image`` is ``uint8 [C, H, W]``."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def lines_for(
    rows: Iterable[int], sample_ids: Sequence[str], images: NDArray[np.uint8], key: bytes
) -> list[Line]:
    """Return the lines for samples to be erased.

    The pixels of a sample are named only if no sample that is kept has the very same: that one was
    not asked for.
    """
    chosen = set(rows)
    named = {row: digests(key, sample_ids[row], images[row]) for row in range(len(sample_ids))}
    shared = {pixels for row, (_, pixels) in named.items() if row not in chosen}
    return [line for row in sorted(chosen) for line in named[row] if line not in shared]
