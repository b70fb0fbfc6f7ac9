"""What a search looks for: samples of any number of requests, under as few keys as can be.

A purge knows its samples in the clear (:meth:`Sought.of_samples`): what is met in a content is looked up in
one set, however many requests there are. On the disk they never lie in the clear: :meth:`Sought.save` writes
keyed digests under a key of its own, and what is loaded from there costs one digest for each thing that is
met. Years later the digests under the keys of the requests are all that is left
(:meth:`Sought.of_requests`): one digest a key, or two for names.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tasks.core.errors import ExpungeError
from tasks.core.files import write_whole

NAME, PIXELS, PICTURE, FILE = "name", "pixels", "picture", "file"
KINDS = (NAME, PIXELS, PICTURE, FILE)
TAIL = "tail"
"""The last parts of names: paths that end otherwise need not be taken apart."""

NAMES = ("id", "path")
"""Kinds of names among a request's digests."""

LONGEST = 1 << 12
"""Bytes of a name: more than that, and no system takes it as a path."""

KEY_SIZE, DIGEST_SIZE = 32, 16

BLOCK_SIZE = 64
"""Bytes of a block of SHA-256, to which HMAC pads the key."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Keyed digests of a request's samples, each a :func:`tasks.requests.keys.reference`.

    Attributes
    ----------
    key
        The request's.
    names
        Of ids (kind ``id``) and source references (kind ``path``).
    pixels
        Of fingerprints (kind ``pixels``).
    files
        Of the SHA-256 of encoded image files (kind ``file``).
    flow_runs
        Ids of Prefect's flow runs that brought the request, or a duplicate of it: their parameters may name
        samples by what no text tells, such as a number.
    weights
        :func:`~tasks.engine.weights.tensor_digest` of models that had learned the samples.
    pictures
        Of :func:`~tasks.samples.pictures.fingerprint_of_picture` (kind ``picture``).
    """

    key: bytes
    names: frozenset[str]
    pixels: frozenset[str]
    files: frozenset[str]
    flow_runs: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()


class Lens(Protocol):
    """Recognises samples; how, depends on what is known of them."""

    @property
    def ascii(self) -> bool:
        """Whether all names are known to be ASCII."""

    @property
    def lengths(self) -> tuple[int, int]:
        """Bytes of the shortest name and of the longest, as far as they are known."""

    def has(self, kind: str) -> bool:
        """Whether anything of a kind is looked for."""

    def met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        """Return those of the values that are looked for."""

    def met_by_end(self, paths: Collection[bytes]) -> set[tuple[bytes, bytes]]:
        """Return those paths of which an end, ``b/c`` of ``a/b/c``, is a name, and that end."""


@dataclass(frozen=True, slots=True)
class _Clear:
    """Samples that are known in the clear, which they are in memory only."""

    values: Mapping[str, frozenset[bytes]]
    tails: frozenset[bytes]
    ascii: bool
    lengths: tuple[int, int]

    @classmethod
    def of(cls, values: Mapping[str, Iterable[bytes]]) -> _Clear:
        sets = {kind: frozenset(values.get(kind, ())) for kind in KINDS}
        names = sets[NAME]
        lengths = [len(name) for name in names]
        return cls(
            sets,
            frozenset(name.rpartition(b"/")[2] for name in names),
            all(map(bytes.isascii, names)),
            (min(lengths, default=LONGEST), max(lengths, default=0)),
        )

    def has(self, kind: str) -> bool:
        return bool(self.values[kind])

    def met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        return set(self.values[kind].intersection(values))

    def met_by_end(self, paths: Collection[bytes]) -> set[tuple[bytes, bytes]]:
        if self.tails.isdisjoint(b"\n".join(paths).replace(b"/", b"\n").split(b"\n")):
            return set()
        likely = (path for path in paths if path.rpartition(b"/")[2] in self.tails)
        return {(path, end) for path in likely for end in ends(path) if end in self.values[NAME]}


class _Keyed:
    """Samples of which keyed digests are known; counts the digests that it makes."""

    def __init__(self, key: bytes, digests: Mapping[str, frozenset[bytes]], lengths: tuple[int, int]) -> None:
        self.key = key
        self.digests = digests
        self.lengths = lengths
        self.ascii = False
        self.made = 0

    def has(self, kind: str) -> bool:
        return bool(self.digests[kind])

    def met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        if not self.digests[kind]:
            return set()
        if kind == NAME:
            least, most = self.lengths
            values = [value for value in values if least <= len(value) <= most]
        return self._met(kind, values)

    def met_by_end(self, paths: Collection[bytes]) -> set[tuple[bytes, bytes]]:
        if not self.digests[NAME]:
            return set()
        least, most = self.lengths
        whole: dict[bytes, list[bytes]] = {}
        for path in self._likely({path for path in paths if b"/" in path and len(path) <= LONGEST}):
            for end in ends(path):
                if least <= len(end) <= most:
                    whole.setdefault(end, []).append(path)
        return {(path, end) for end in self._met(NAME, whole) for path in whole[end]}

    def _likely(self, paths: set[bytes]) -> Collection[bytes]:
        """Paths of which an end may be a name."""
        return paths

    def _met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        raise NotImplementedError


class _Scan(_Keyed):
    """Digests under the key of one purge."""

    @classmethod
    def of(cls, clear: _Clear) -> _Scan:
        """Hide what is known in the clear under a new key."""
        key = secrets.token_bytes(KEY_SIZE)
        digests = {}
        for kind, values in [*clear.values.items(), (TAIL, clear.tails)]:
            state = _state(key, kind)
            digests[kind] = frozenset(_digest(state, value) for value in values)
        scan = cls(key, digests, clear.lengths)
        scan.ascii = clear.ascii
        return scan

    def _likely(self, paths: set[bytes]) -> Collection[bytes]:
        tails: dict[bytes, list[bytes]] = {}
        for path in paths:
            tails.setdefault(path.rpartition(b"/")[2], []).append(path)
        return [path for tail in self._met(TAIL, tails) for path in tails[tail]]

    def _met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        self.made += len(values)
        copy, sought, met = _state(self.key, kind).copy, self.digests[kind], set()
        for value in values:
            state = copy()
            state.update(value)
            if state.digest() in sought:
                met.add(value)
        return met


class _Request(_Keyed):
    """Digests under the key of one request, each a :func:`tasks.requests.keys.reference`."""

    def __init__(self, wanted: Wanted) -> None:
        digests = {NAME: wanted.names, PIXELS: wanted.pixels, PICTURE: wanted.pictures, FILE: wanted.files}
        sets = {kind: frozenset(map(bytes.fromhex, values)) for kind, values in digests.items()}
        super().__init__(wanted.key, sets, (1, LONGEST))

    def _met(self, kind: str, values: Collection[bytes]) -> set[bytes]:
        padded, sought, met = self.key.ljust(BLOCK_SIZE, b"\0"), self.digests[kind], set()
        outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded)).copy
        for name in NAMES if kind == NAME else (kind,):
            inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + name.encode() + b"\0").copy
            self.made += len(values)
            for value in values:
                inside, outside = inner(), outer()
                inside.update(value)
                outside.update(inside.digest())
                if outside.digest() in sought:
                    met.add(value)
        return met


def _state(key: bytes, kind: str) -> Any:
    return hashlib.blake2b(key=key, digest_size=DIGEST_SIZE, person=kind.encode())


def _digest(state: Any, value: bytes) -> bytes:
    copy = state.copy()
    copy.update(value)
    return bytes(copy.digest())


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """What a search looks for.

    Attributes
    ----------
    lenses
        Each recognises samples under one key.
    weights
        :func:`~tasks.engine.weights.tensor_digest` of models that had learned the samples.
    flow_runs
        Ids of Prefect's flow runs that brought the requests.
    roots
        Paths of folders, each with a slash at its end: a path that is one of them and a name is that name,
        not merely a path that ends like it.
    sizes
        ``(H, W)`` of the samples, as they are in the split and in their source; pictures of other sizes need
        not be looked at. None if it is not known.
    seen
        Digests of contents that were searched, and what was found: none is searched twice.
    """

    lenses: tuple[Lens, ...]
    weights: frozenset[str] = frozenset()
    flow_runs: frozenset[str] = frozenset()
    roots: frozenset[bytes] = frozenset()
    sizes: frozenset[tuple[int, int]] | None = None
    seen: dict[bytes, Any] = field(default_factory=dict)

    @classmethod
    def of_samples(
        cls,
        names: Iterable[str],
        pixels: Iterable[str] = (),
        pictures: Iterable[str] = (),
        files: Iterable[str] = (),
        weights: Iterable[str] = (),
        flow_runs: Iterable[str] = (),
        *,
        roots: Iterable[str] = (),
        sizes: Iterable[tuple[int, int]] | None = None,
    ) -> Sought:
        """Look for samples that are known in the clear.

        Parameters
        ----------
        names
            Ids and source references.
        pixels, pictures, files
            Fingerprints, fingerprints of pictures, and SHA-256 of encoded images, in hex.
        weights, flow_runs, roots, sizes
            As the attributes; a root needs no slash at its end.
        """
        clear = _Clear.of(
            {
                NAME: (name.encode(errors="surrogateescape") for name in names if name),
                PIXELS: map(str.encode, pixels),
                PICTURE: map(str.encode, pictures),
                FILE: map(str.encode, files),
            }
        )
        return cls(
            (clear,), frozenset(weights), frozenset(flow_runs), _roots(roots),
            None if sizes is None else frozenset(sizes),
        )  # fmt: skip

    @classmethod
    def of_requests(cls, wanted: Iterable[Wanted], *, roots: Iterable[str] = ()) -> Sought:
        """Look for samples of which only the ledger's digests are known, and the keys of the requests."""
        each = list(wanted)
        weights = frozenset[str]().union(*(one.weights for one in each))
        runs = frozenset[str]().union(*(one.flow_runs for one in each))
        return cls(tuple(map(_Request, each)), weights, runs, _roots(roots))

    @classmethod
    def merged(cls, several: Iterable[Sought]) -> Sought:
        """Look for all that several look for; those that are known in the clear cost no more than one."""
        all_of = list(several)
        lenses = [lens for sought in all_of for lens in sought.lenses]
        clear = [lens for lens in lenses if isinstance(lens, _Clear)]
        others = [lens for lens in lenses if not isinstance(lens, _Clear)]
        one = _Clear.of(
            {kind: frozenset[bytes]().union(*(each.values[kind] for each in clear)) for kind in KINDS}
        )
        sizes = [sought.sizes for sought in all_of]
        known = [each for each in sizes if each is not None]
        return cls(
            (one, *others) if clear else tuple(others),
            frozenset[str]().union(*(sought.weights for sought in all_of)),
            frozenset[str]().union(*(sought.flow_runs for sought in all_of)),
            frozenset[bytes]().union(*(sought.roots for sought in all_of)),
            frozenset[tuple[int, int]]().union(*known) if len(known) == len(sizes) and sizes else None,
        )

    def without_weights(self) -> Sought:
        """Look for the samples alone, not for models that had learned them."""
        return replace(self, weights=frozenset(), seen={})

    def __bool__(self) -> bool:
        return bool(self.weights or self.flow_runs or any(self.has(kind) for kind in KINDS))

    @property
    def digests_made(self) -> int:
        """How many keyed digests were made so far: what a search costs."""
        return sum(lens.made for lens in self.lenses if isinstance(lens, _Keyed))

    def has(self, kind: str) -> bool:
        """Whether anything of a kind is looked for."""
        return any(lens.has(kind) for lens in self.lenses)

    def is_file(self, sha256: str) -> bool:
        """Whether an encoded image with this SHA-256 is looked for."""
        return any(lens.met(FILE, [sha256.encode()]) for lens in self.lenses)

    @property
    def ascii(self) -> bool:
        """Whether all names are known to be ASCII."""
        return all(lens.ascii for lens in self.lenses)

    @property
    def shortest(self) -> int:
        """Bytes of the shortest name, as far as it is known."""
        return min((lens.lengths[0] for lens in self.lenses), default=0)

    def of_size(self, height: int, width: int) -> bool:
        """Whether a sample may have this size, lying on its side or not."""
        return self.sizes is None or (height, width) in self.sizes or (width, height) in self.sizes

    def save(self, path: Path) -> None:
        """Write it for a purge that is taken up again once nobody knows the samples in the clear.

        The file holds keyed digests and their key, and can be read by its owner alone. Whoever has it can
        tell whether a given sample is meant, so it is to be deleted when the purge is done.

        Raises
        ------
        ValueError
            If requests' own digests are among what is looked for: their keys lie in the key store alone.
        """
        if any(isinstance(lens, _Request) for lens in self.lenses):
            raise ValueError("the keys of requests are kept in the key store alone")
        entries = []
        for lens in self.lenses:
            if isinstance(lens, _Clear):
                lens = _Scan.of(lens)  # noqa: PLW2901
            if isinstance(lens, _Scan):
                kinds = {
                    kind: sorted(each.hex() for each in digests) for kind, digests in lens.digests.items()
                }
                entries.append(
                    {"key": lens.key.hex(), "lengths": list(lens.lengths), "ascii": lens.ascii, **kinds}
                )
        value = {
            "lenses": entries,
            "weights": sorted(self.weights),
            "flow_runs": sorted(self.flow_runs),
            "roots": sorted(root.decode(errors="surrogateescape") for root in self.roots),
            "sizes": None if self.sizes is None else sorted(map(list, self.sizes)),
        }
        with write_whole(path, private=True) as file:
            file.write(json.dumps(value).encode())

    @classmethod
    def load(cls, path: Path) -> Sought:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ExpungeError
            If the file is missing or damaged.
        """
        try:
            value = json.loads(path.read_bytes())
            lenses = []
            for each in value["lenses"]:
                digests = {kind: frozenset(map(bytes.fromhex, each[kind])) for kind in (*KINDS, TAIL)}
                least, most = map(int, each["lengths"])
                lenses.append(_Scan(bytes.fromhex(each["key"]), digests, (least, most)))
                lenses[-1].ascii = bool(each["ascii"])
            sizes = value["sizes"]
            return cls(
                tuple(lenses), frozenset(value["weights"]), frozenset(value["flow_runs"]),
                _roots(value["roots"]),
                None if sizes is None else frozenset((int(height), int(width)) for height, width in sizes),
            )  # fmt: skip
        except FileNotFoundError:
            raise ExpungeError(f"{path} is missing: what this purge looks for is no longer known") from None
        except (ValueError, KeyError, TypeError):
            raise ExpungeError(f"{path} is damaged: what this purge looks for is no longer known") from None


def sought_of(sought: Sought | Iterable[Wanted]) -> Sought:
    """Return what is looked for, given as such or as the digests of requests."""
    return sought if isinstance(sought, Sought) else Sought.of_requests(sought)


def ends(path: bytes) -> Iterator[bytes]:
    """Ends of a path: ``b/c`` and ``c`` of ``a/b/c``."""
    place = path.find(b"/")
    while place >= 0:
        if end := path[place + 1 :]:
            yield end
        place = path.find(b"/", place + 1)


def _roots(paths: Iterable[str]) -> frozenset[bytes]:
    return frozenset(path.rstrip("/").encode(errors="surrogateescape") + b"/" for path in paths)
