"""What identifies the samples of a purge, anywhere: names, looks, and the models that knew them.

While the data still has the samples they are known in the clear, and a search costs the same for one
request as for thousands. Afterwards only the ledger's digests under the requests' own keys tell. So a purge
keeps what it looks for beside the keys until it is done, under a key drawn for it alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.core.params import Split
from tasks.erasure import originals
from tasks.erasure.sought import Sought, Wanted
from tasks.requests import events as facts
from tasks.requests.chain import latest_event
from tasks.requests.desk import Desk
from tasks.requests.events import NOTHING_LEARNED, NOTHING_LEFT
from tasks.requests.keys import reference
from tasks.requests.naming import meant
from tasks.requests.production import in_production, in_production_before
from tasks.requests.request import Request
from tasks.requests.standing import Row
from tasks.requests.suppression import fingerprint
from tasks.samples.manifest import SplitSamples, load_samples
from tasks.samples.pictures import hexes, read_pictures
from tasks.samples.shards import FOLDER as IMAGES
from tasks.samples.table import SPLIT


@dataclass(frozen=True, slots=True)
class Identity:
    """What a search looks for, and how many looks of it were left out: samples that stay have the same."""

    sought: Sought
    twins: int


@dataclass(frozen=True, slots=True)
class _Looks:
    """What the samples of the split look like; rows are those of the split."""

    split: SplitSamples
    pixels: Sequence[str]
    pictures: Sequence[str]

    @classmethod
    def read(cls) -> _Looks | None:
        if not (SPLIT / IMAGES).exists():
            return None
        split = load_samples(mmap=True)
        pictures = hexes(read_pictures(SPLIT, len(split.samples)))
        return cls(split, [fingerprint(image) for image in split.images], pictures)

    def encoded(self, rows: Collection[int], section: Split) -> Mapping[int, bytes]:
        """Encoded images of rows, as far as they are encoded and still there."""
        sources = {row: self.split.samples.sources[row] for row in rows}
        found = originals.encoded(section, sorted(set(sources.values())))
        return {row: found[source] for row, source in sources.items() if source in found}

    def files(self, rows: Collection[int], section: Split) -> Mapping[int, str]:
        """SHA-256 of the encoded images of rows."""
        return {row: _sha256(content) for row, content in self.encoded(rows, section).items()}


def of_data(requests: Sequence[Request], desk: Desk, section: Split) -> Identity:
    """Return what identifies samples, in the clear as far as the split has them.

    Raises
    ------
    ExpungeError
        If a key was destroyed: then nothing can be recognised any more.
    """
    looks = _Looks.read()
    if looks is None:
        return of_ledger(requests, desk, section)
    ids = looks.split.samples.sample_ids
    row_of = {name: row for row, name in enumerate(ids)}
    leaving: set[int] = set()
    unknown: list[Request] = []
    gone: set[str] = set()
    for request in requests:
        names = meant(request, desk.keys, row_of, remaining=False)
        leaving.update(row_of[name] for name in names)
        if desk.key_if_there(request.id) is None:
            gone.update(desk.keys.names(request.id) or ())
        elif len(names) < len(request.digests.get("id", ())):
            unknown.append(request)
    staying = [row for row in range(len(ids)) if row not in leaving]
    pixels, twin_pixels = _apart(looks.pixels, leaving, staying)
    pictures, twin_pictures = _apart(looks.pictures, leaving, staying)
    twins = [
        row for row in staying if looks.pixels[row] in twin_pixels or looks.pictures[row] in twin_pictures
    ]
    encoded = looks.encoded(leaving, section)
    alone = [content for row, content in encoded.items() if looks.pictures[row] in pictures]
    pictures |= set(originals.further_pictures(alone))
    files = set(map(_sha256, encoded.values())) - set(looks.files(twins, section).values())
    sources = looks.split.samples.sources
    beside = _beside(requests, desk)
    clear = Sought.of_samples(
        [*gone, *(name for row in leaving for name in (ids[row], sources[row]))],
        pixels,
        pictures,
        files,
        frozenset[str]().union(*(weights for weights, _ in beside)),
        frozenset[str]().union(*(flow_runs for _, flow_runs in beside)),
        roots=_roots(section),
    )
    if not unknown:
        return Identity(clear, len(twin_pixels))
    rest = of_ledger(unknown, desk, section, leaving={ids[row] for row in leaving})
    return Identity(Sought.merged([clear, rest.sought]), len(twin_pixels) + rest.twins)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_ledger(
    requests: Sequence[Request], desk: Desk, section: Split, leaving: Collection[str] = ()
) -> Identity:
    """Return what identifies samples by the ledger's digests alone.

    Parameters
    ----------
    requests, desk, section
        As for :func:`of_data`, and so are the errors.
    leaving
        Ids in the split of samples that are to go.
    """
    wanted, twins = _told_apart(wanted_of(requests, desk), section, leaving)
    return Identity(Sought.of_requests(wanted, roots=_roots(section)), twins)


def remembered(names: Sequence[str], requests: Sequence[Request], desk: Desk, section: Split) -> Identity:
    """Return what a purge of these requests looks for, as it was when it began.

    Parameters
    ----------
    names
        Ids of all requests of the purge, those among them that were purged before.
    requests, desk, section
        As for :func:`of_data`, and so are the errors.
    """
    path = _path(names, desk)
    if path.exists():
        return Identity(Sought.load(path), 0)
    found = of_data(requests, desk, section)
    try:
        found.sought.save(path)
    except ValueError:  # some are known by the ledger's digests alone, which stay where they are
        return found
    return found


def forget(names: Sequence[str], desk: Desk) -> None:
    """Delete what a purge has looked for, once it is done."""
    _path(names, desk).unlink(missing_ok=True)


def _path(names: Sequence[str], desk: Desk) -> Path:
    digest = hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
    return desk.keys.folder / f"purge-{digest[:32]}.sought"


def _roots(section: Split) -> list[str]:
    """Paths of the source as they may be written, also as the address that a desktop's thumbnail holds."""
    whole = {Path(section.path).absolute(), Path(section.path).resolve()}
    return [section.path, *map(str, whole), *(f"file://{path}" for path in whole)]


def _apart(looks: Sequence[str], leaving: Iterable[int], staying: Iterable[int]) -> tuple[set[str], set[str]]:
    """Return the looks of what leaves that nothing which stays has, and those that something has."""
    asked = {looks[row] for row in leaving}
    shared = asked.intersection(looks[row] for row in staying)
    return asked - shared, shared


def wanted_of(requests: Sequence[Request], desk: Desk) -> list[Wanted]:
    """Return what the ledger has to recognise the samples of requests by.

    Raises
    ------
    ExpungeError
        If a key was destroyed: then nothing can be recognised any more.
    """
    return [
        Wanted(
            key=desk.keys.load(request.id),
            names=request.digests.get("id", frozenset()) | request.digests.get("path", frozenset()),
            pixels=_content(request, "pixels"),
            pictures=_content(request, "picture"),
            files=_content(request, "file"),
            flow_runs=flow_runs,
            weights=weights,
        )
        for request, (weights, flow_runs) in zip(requests, _beside(requests, desk), strict=True)
    ]


def _beside(requests: Sequence[Request], desk: Desk) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Return, for each request, the models that knew its samples and the flow runs that brought it.

    No key is needed for them.
    """
    asked = {request.id for request in requests}
    rows: dict[str, list[Row]] = {}
    for row in desk.rows():
        for name in {row.request, row.first} & asked:
            rows.setdefault(str(name), []).append(row)
    current = in_production(desk.ledger)
    kept = {current.weights} if current else set()
    destroys = desk.settings.superseded == "destroy"
    found = []
    for request in requests:
        bases = [*bases_of([request]), *replaced_models([request], desk)]
        knew = {base.weights for base in bases} | set(recorded_weights(request) or ())
        weights = frozenset(knew - kept if destroys else ())
        found.append((weights, brought(desk, rows.get(request.id, ()))))
    return found


def _content(request: Request, kind: str) -> frozenset[str]:
    return frozenset(entry[kind] for entry in request.content if kind in entry)


def brought(desk: Desk, rows: Iterable[Row]) -> frozenset[str]:
    """Ids of the flow runs that brought requests."""
    found = (desk.show(row.request).received.flow_run for row in rows)
    return frozenset(run.id for run in found if run)


def bases_of(requests: Iterable[Request]) -> Iterator[facts.Base]:
    """Models, by version and weights, that had learned samples of requests."""
    for request in requests:
        for attempt in request.all_common(facts.Attempt):
            if attempt.method not in {NOTHING_LEFT, NOTHING_LEARNED}:
                yield attempt.base


def replaced_models(requests: Iterable[Request], desk: Desk) -> Iterator[facts.Base]:
    """Models that another one had replaced in production, by a person, before the requests' batch began."""
    for request in requests:
        attempts = request.all_common(facts.Attempt)
        promoted = latest_event(request.events, facts.Promoted)
        if promoted and any(each.method != NOTHING_LEFT for each in attempts[-1:]):
            event = latest_event(request.of_batch, facts.Promotion) or promoted
            yield from in_production_before(desk.ledger, event.seq)


def recorded_weights(request: Request) -> Sequence[str] | None:
    """Digests of all models that a purge of the request deleted; ``None`` if none recorded them."""
    purged = request.common(facts.Purge)
    return None if purged is None else purged.void_weights


def _told_apart(
    wanted: Sequence[Wanted], section: Split, leaving: Collection[str]
) -> tuple[list[Wanted], int]:
    """Leave out what samples share with others that stay: who looks the same was not asked for.

    Returns
    -------
    wanted
        Without the digests of pixels, pictures and files that samples which stay have, too.
    count
        How many digests of pixels were left out.
    """
    looks = _Looks.read() if any(each.pixels or each.pictures for each in wanted) else None
    if looks is None:
        return list(wanted), 0
    ids = looks.split.samples.sample_ids
    staying = [row for row in range(len(ids)) if ids[row] not in leaving]
    found = []
    for each in wanted:
        same = {
            row
            for row in staying
            if reference(each.key, "pixels", looks.pixels[row]) in each.pixels
            or reference(each.key, "picture", looks.pictures[row]) in each.pictures
        }
        found.append(
            replace(
                each,
                pixels=each.pixels - {reference(each.key, "pixels", looks.pixels[row]) for row in same},
                pictures=each.pictures
                - {reference(each.key, "picture", looks.pictures[row]) for row in same},
                files=each.files
                - {reference(each.key, "file", value) for value in looks.files(same, section).values()},
            )
            if same
            else each
        )
    count = sum(len(before.pixels) - len(now.pixels) for before, now in zip(wanted, found, strict=True))
    return found, count
