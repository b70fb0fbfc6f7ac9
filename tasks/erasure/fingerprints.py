"""What the samples of a batch look like, for the record: keyed digests by which copies are found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.core.params import Split
from tasks.erasure import originals
from tasks.requests.keys import KeyStore, reference
from tasks.requests.naming import meant
from tasks.requests.request import Request
from tasks.requests.suppression import Line, fingerprint, lines_for
from tasks.samples.manifest import load_samples
from tasks.samples.pictures import read_pictures
from tasks.samples.table import SPLIT


class Contents:
    """What the samples of a batch look like, as keyed digests: by them copies are found in any store.

    Parameters
    ----------
    keys
        Of the requests.
    section
        Names the source.
    ids
        Of samples in ``data/split``.
    """

    def __init__(self, keys: KeyStore, section: Split, ids: Sequence[str]) -> None:
        self._keys = keys
        self._ids = list(ids)
        self._known = frozenset(ids)
        if not ids:
            return
        self._split = load_samples(mmap=True)
        self._pictures = read_pictures(SPLIT, len(self._split.samples))
        self._row_of = {name: row for row, name in enumerate(self._split.samples.sample_ids)}
        sources = [self._source(name) for name in ids]
        self._encoded = originals.encoded(section, sources)

    def names(self, request: Request) -> list[str]:
        """Ids that a request names and that no other batch has erased."""
        return meant(request, self._keys, self._known)

    def of(self, request: Request) -> list[dict[str, str]]:
        """Digests of a request's samples under its key.

        They are of the pixels as they were split, of the picture as it was decoded, and of the encoded image
        where it has one.
        """
        key = self._keys.load(request.id)
        found = []
        for name in self.names(request):
            row = self._row_of[name]
            pixels, picture = fingerprint(self._split.images[row]), self._pictures[row].tobytes().hex()
            found.append(
                {"pixels": reference(key, "pixels", pixels), "picture": reference(key, "picture", picture)}
            )
            if encoded := self._encoded.get(self._source(name)):
                found[-1]["file"] = reference(key, "file", hashlib.sha256(encoded).hexdigest())
                further = originals.further_pictures([encoded])
                found += [{"picture": reference(key, "picture", each)} for each in further]
        return sorted(found, key=lambda entry: entry.get("pixels", entry["picture"]))  # which tells nothing

    def lines(self, key: bytes) -> list[Line]:
        """Lines for the list of what was erased, under that list's key."""
        if not self._ids:
            return []
        rows = [self._row_of[name] for name in self._ids]
        names = self._split.samples.sample_ids
        return lines_for(rows, names, self._split.images, self._pictures, key)

    def _source(self, name: str) -> str:
        return self._split.samples.sources[self._row_of[name]]
