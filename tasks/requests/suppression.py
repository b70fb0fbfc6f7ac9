"""The list of what was erased, so that it never returns.

``data/requests/erased.txt`` is kept in Git. It names every erased sample by keyed digests, of its id, of
its pixels as they were split and of its picture as it was decoded, so it can be read by all and tells
nothing. Whatever reads a source takes out what the list names, whoever runs it and whatever for. The
digests are made under a key of their own, which must be wherever data is split; unlike a request's it is
kept, for without it erased samples could come back.

The list tells its count, digest and key, so one that Git or a person has put together of two is found to
be wrong; :mod:`tasks.requests.high_water` finds one that is right but old.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.requests.keys import LIST_KEY, KeyStore, check_value, reference, references
from tasks.samples.mapped import Images
from tasks.samples.pictures import hexes

RESTORE_LIST = "expunge suppression restore"
"""Command that writes the list anew, with all that this folder of keys knows of."""

HEAD = """\
# Samples that were erased and must not return: keyed digests of their ids, pixels and pictures.
# Written by expunge. Do not edit: a line that is taken out lets a sample back in.
# Do not merge by hand either; take one side, then run: expunge suppression restore
"""
FORMAT = "2"
"""What a list begins with; one that begins with a line of samples is of format 1, and tells no digest."""

SAMPLE = re.compile(r"(id|pixels|picture) ([0-9a-f]{64})")
TELLING = re.compile(r"(format|key|count|digest) ([0-9a-f]{1,64})")

Line = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Erased:
    """The list, and the key to compare with it.

    Attributes
    ----------
    lines
        ``(kind, digest)``, kind ``id``, ``pixels`` or ``picture``, sorted: the same lines make the same
        file, in whatever order and on whichever machine they were added.
    key
        :func:`~tasks.requests.keys.check_value` of the key that the digests were made under; None if the
        list does not tell.
    """

    lines: tuple[Line, ...]
    key: str | None = None

    @classmethod
    def read(cls, path: Path) -> Erased:
        """Read the list, and see that it is as it was written; not whether it is the newest.

        Raises
        ------
        ExpungeError
            If the file is missing, holds a line that is none of the list's, or other lines than it says:
            what cannot be read cannot be kept out.
        """
        restore = f"restore it: git checkout -- {path}"
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            raise ExpungeError(f"{path} is missing; {restore}") from None
        return cls.parse(text, str(path), f"{restore}, and after a merge run: {RESTORE_LIST}")

    @classmethod
    def parse(cls, text: str, where: str, advice: str) -> Erased:
        """Read a list from its text.

        Parameters
        ----------
        where, advice
            The file, and what is to be done if it is damaged, for messages.
        """
        told: dict[str, str] = {}
        lines: list[Line] = []
        for number, line in enumerate(text.splitlines(), start=1):
            if sample := SAMPLE.fullmatch(line):
                lines.append((sample[1], sample[2]))
            elif line.startswith("#") or not line:
                continue
            elif (word := TELLING.fullmatch(line)) and not lines and word[1] not in told:
                told[word[1]] = word[2]
            else:
                raise ExpungeError(f"{where}, line {number} is damaged; {advice}")
        found = cls(tuple(sorted(set(lines))), told.get("key"))
        if not told and any(kind == "picture" for kind, _ in lines):
            raise ExpungeError(f"{where} has lost the lines that it began with; {advice}")
        if told and told.get("format") != FORMAT:
            raise ExpungeError(f"{where} is of another format than {FORMAT}; use the version that wrote it")
        if told and (told.get("count"), told.get("digest")) != (str(len(lines)), found.digest):
            raise ExpungeError(
                f"{where} does not hold the {told.get('count', 'number of')} lines that it was written with: "
                f"it was cut short, edited, or merged by hand; {advice}"
            )
        if told and lines and found.key is None:
            raise ExpungeError(f"{where} does not tell under which key it was written; {advice}")
        return found

    @property
    def digest(self) -> str:
        """SHA-256 of the lines."""
        return hashlib.sha256(_joined(self.lines).encode()).hexdigest()

    @property
    def text(self) -> str:
        """The list as a file has it."""
        key = f"key {self.key}\n" if self.key else ""
        told = f"format {FORMAT}\n{key}count {len(self.lines)}\ndigest {self.digest}\n"
        return HEAD + told + _joined(self.lines)

    def write(self, path: Path) -> None:
        """Write the list whole."""
        write_text(path, self.text)

    def having(self, lines: Iterable[Line]) -> Erased:
        """Return the list with further lines."""
        return Erased(tuple(sorted({*self.lines, *lines})), self.key)

    def kept(
        self,
        sample_ids: Sequence[str],
        images: Images,
        pictures: NDArray[np.uint8],
        keys: KeyStore,
    ) -> NDArray[np.int64]:
        """Row numbers of the samples that the list does not name, ascending.

        Parameters
        ----------
        sample_ids
            N ids.
        images
            ``uint8 [N, C, H, W]``.
        pictures
            ``uint8 [N, 32]``, see :mod:`tasks.samples.pictures`.
        keys
            Holds the list's key, which is asked for only if the list names something.

        Raises
        ------
        ExpungeError
            If the key is not there, or is not the list's.
        """
        if not self.lines:
            return np.arange(len(sample_ids))
        key = self._key(keys)
        named = np.zeros(len(sample_ids), dtype=np.bool_)
        columns: dict[str, Iterable[str]] = {
            "id": sample_ids,
            "pixels": map(fingerprint, images),
            "picture": hexes(pictures),
        }
        for kind, values in columns.items():
            if known := self._digests(kind):
                digest = references(key, kind)
                named |= np.fromiter((digest(value) in known for value in values), np.bool_, len(named))
        return np.flatnonzero(~named)

    def naming(self, keys: KeyStore) -> Callable[[str], bool]:
        """Return the test whether the list names an id; parameters and errors as :meth:`kept`."""
        if not self.lines:
            return lambda _: False
        known, digest = self._digests("id"), references(self._key(keys), "id")
        return lambda sample_id: digest(sample_id) in known

    def _digests(self, kind: str) -> frozenset[str]:
        return frozenset(digest for each, digest in self.lines if each == kind)

    def _key(self, keys: KeyStore) -> bytes:
        key = load_key(keys)
        if self.key not in (None, check_value(key)):
            raise ExpungeError(
                f"{LIST_KEY}.key in {keys.folder} is not the one that the list of erased samples was written "
                "under; restore the right one, or set EXPUNGE_KEYS to the folder that has it"
            )
        return key


def load_key(keys: KeyStore) -> bytes:
    """Return the list's key.

    Raises
    ------
    ExpungeError
        If it is not there.
    """
    if not keys.exists(LIST_KEY):
        raise ExpungeError(
            f"samples were erased, and {keys.folder} lacks the key that tells which; "
            f"copy {LIST_KEY}.key there, or set EXPUNGE_KEYS to the folder that has it"
        )
    return keys.load(LIST_KEY)


def fingerprint(image: NDArray[np.uint8]) -> str:
    """SHA-256 of an image's shape and pixels, in hex; ``image`` is ``uint8 [C, H, W]``."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def lines_for(
    rows: Iterable[int],
    sample_ids: Sequence[str],
    images: Images,
    pictures: NDArray[np.uint8],
    key: bytes,
) -> list[Line]:
    """Return the lines for samples to be erased.

    The pixels and the picture of a sample are named only if no sample that is kept has the very same:
    that one was not asked for.

    Parameters
    ----------
    rows, key
        Of the samples to be erased, and of the list.
    sample_ids, images, pictures
        Of all samples, as :meth:`Erased.kept` takes them.
    """
    chosen = sorted(set(rows))
    staying = np.ones(len(sample_ids), dtype=np.bool_)
    staying[chosen] = False
    lines = [("id", reference(key, "id", sample_ids[row])) for row in chosen]
    for kind, values in (("pixels", [*map(fingerprint, images)]), ("picture", hexes(pictures))):
        kept = {values[row] for row in np.flatnonzero(staying)}
        lines += [(kind, reference(key, kind, values[row])) for row in chosen if values[row] not in kept]
    return list(dict.fromkeys(lines))


def _joined(lines: Iterable[Line]) -> str:
    return "".join(f"{kind} {digest}\n" for kind, digest in lines)
