"""What is held of a person: which samples, where, in which models, since when, and what was asked for.

It answers a request for access (GDPR Art. 15). The person's reference is compared and never written down.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core import git
from tasks.core.errors import ExpungeError
from tasks.core.params import Params
from tasks.erasure import history
from tasks.erasure.pointers import below_root, read_pointers
from tasks.erasure.stores.dvc import DvcCache
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.events import BASES
from tasks.requests.heldout import never_learned
from tasks.requests.keys import reference
from tasks.requests.production import changes, in_production, models
from tasks.requests.request import Recognition, Request
from tasks.requests.subjects import HOW_TO_TELL
from tasks.samples.table import SPLIT
from tasks.samples.unicode_forms import forms

KNOWN = (
    "the earliest commit whose list of samples is still in DVC's cache and names one of them; lists of "
    "before may have been purged, so they may have been held for longer"
)
UNKNOWN = "no commit is known whose list of samples names one of them and is still in DVC's cache"


@dataclass(frozen=True, slots=True)
class Held:
    """A sample of the person.

    ``path``: where it was read from. ``part``: of the split. ``people``: how many it shows. ``learned``:
    whether the model in production may have been trained on it.
    """

    id: str
    path: str
    part: str
    class_name: str
    people: int
    learned: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where samples lie, or what was made of them; ``what`` says how they are there."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Knowing:
    """A model that learned from samples of the person, or may have.

    ``state``: ``in production`` or ``superseded, kept``. ``samples``: how many it may have learned, ``None``
    where nothing tells. ``since``: when it went into production.
    """

    version: str | None
    weights: str
    state: str
    samples: int | None
    since: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for samples of the person; ``how`` says what it names."""

    request: str
    status: str
    received_at: str | None
    how: str


@dataclass(frozen=True, slots=True)
class Since:
    """When samples of the person are first known to have been held, and by what."""

    at: str | None
    commit: str | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is held of a person."""

    samples: tuple[Held, ...]
    places: tuple[Place, ...]
    models: tuple[Knowing, ...]
    since: Since | None
    requests: tuple[Asked, ...]
    unknown: tuple[str, ...]
    """What could not be told, and why."""

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        value = asdict(self)
        for sample in value["samples"]:
            sample["class"] = sample.pop("class_name")
        return {"held": len(self.samples), **value}


def held_of(name: str, desk: Desk, params: Params, root: Path) -> Holdings:
    """Return what is held of a person.

    Parameters
    ----------
    name
        The reference that the source has.
    desk, params, root
        The record, the parameters and the folder of the checkout.

    Raises
    ------
    ExpungeError
        If the split cannot be read, does not say whose its samples are, or its key is not there.
    """
    if not name.strip():
        raise ExpungeError("of whom? Give the reference that the source has, such as crm:4711")
    catalogue = Catalogue.load()
    ids = catalogue.subjects.of(name, desk.keys)
    requests = desk.requests()
    asked = tuple(_asked(name, ids, requests, desk))
    nobody = () if catalogue.subjects else (f"whose any sample is: {HOW_TO_TELL}",)
    if nobody and not any(_asks_for_people(request) for request in requests):  # it never told
        raise ExpungeError(HOW_TO_TELL)
    learned, people = set(ids) - never_learned(ids, catalogue), catalogue.subjects.people
    samples = tuple(
        Held(
            sample_id, f"{params.split.path}/{source}", part, class_name,
            people[sample_id], sample_id in learned,
        )
        for sample_id, source, part, class_name in catalogue.rows_of(ids)
    )  # fmt: skip
    if not samples:
        return Holdings((), (), (), None, asked, nobody)
    in_training = sum(each.learned for each in samples)
    knowing, unknown = _models(in_training, desk, params, root)
    return Holdings(
        samples,
        tuple(_places(len(ids), in_training, params, root)),
        knowing,
        _since(frozenset(ids), root),
        asked,
        unknown,
    )


def _asked(name: str, ids: Collection[str], requests: Iterable[Request], desk: Desk) -> Iterator[Asked]:
    """Requests that ask for the person, or name one of the samples."""
    for request in requests:
        key = desk.key_if_there(request.id)
        named = _named(request, key, ids) if key else 0
        hows = [
            *(["asks for this person"] if key and _asks_for(request, key, name) else []),
            *([f"names {named} of the samples"] if named else []),
        ]
        if hows:
            status = str(request.state.status)
            yield Asked(request.id, status, request.received_at, ", ".join(hows))


def _asks_for_people(request: Request) -> bool:
    validated = request.latest(facts.Validated)
    return validated is not None and bool(validated.subjects)


def _asks_for(request: Request, key: bytes, name: str) -> bool:
    validated = request.latest(facts.Validated)
    digests = {reference(key, "subject", form) for form in forms(name)}
    return validated is not None and not digests.isdisjoint(validated.subjects)


def _named(request: Request, key: bytes, ids: Collection[str]) -> int:
    return len(Recognition.of_all(request, key).among(ids))


def _places(count: int, learned: int, params: Params, root: Path) -> Iterator[Place]:
    path = params.split.path
    yield Place(path, f"the originals, {count} sample(s)")
    for pointer in read_pointers(root).of(below_root(root, path)):
        if pointer.current:
            yield Place(pointer.file, "tracks them with DVC: they are in its cache, and where it was pushed")
    yield Place(str(SPLIT), "pixels, ids and labels, as they were split; DVC's cache has the same")
    for folder in sorted(path.parent for path in Path("data").glob("*/weights.json")):
        if (folder / "logits.npy").exists():
            yield Place(f"{folder}/logits.npy", "what that model says of each of them")
        if learned:
            yield Place(f"{folder}/weights.safetensors", "a model of this checkout, made from that data")


def _models(
    learned: int, desk: Desk, params: Params, root: Path
) -> tuple[tuple[Knowing, ...], tuple[str, ...]]:
    """Models that were or are in production and may have learned of the samples, the present one first."""
    current = in_production(desk.ledger)
    put = {base.weights: (event, base) for event, base in reversed(changes(desk.ledger.events(kinds=BASES)))}
    gone = {
        weights
        for event in desk.ledger.events(kinds=(facts.Purge.kind,))
        if isinstance(event.fact, facts.Purge)
        for weights in event.fact.void_weights
    }
    unknown: list[str] = []
    registered: Mapping[str, str] | None = None
    try:
        registry = models(params, root)
        registered = {each.weights: each.version for each in registry.versions()} if registry else None
    except ExpungeError as error:
        unknown.append(f"which models MLflow keeps: {error}")
    found: list[Knowing] = []
    for weights, (event, base) in put.items():
        commit = event.fact.links().get("commit")
        if current and weights == current.weights:
            if learned:
                found.insert(0, Knowing(base.version, weights, "in production", learned, event.at, commit))
        elif weights in registered if registered is not None else weights not in gone:
            found.append(Knowing(base.version, weights, "superseded, kept", None, event.at, commit))
    return tuple(found), tuple(unknown)


def _since(ids: frozenset[str], root: Path) -> Since:
    """Find the earliest commit whose list of samples is still there and names one."""
    try:
        blobs = history.in_each_commit("dvc.lock", root)
    except ExpungeError:  # there is no history
        return Since(None, None, UNKNOWN)
    cache, known = DvcCache(root), dict[str, bool]()
    dated = sorted(
        (git.ask("show", "-s", "--format=%cI", commits[-1], root=root), commits[-1], blob)
        for blob, commits in blobs.items()
    )
    contents = history.blobs(blobs, root)
    for at, commit, blob in dated:
        md5 = _list_in(contents[blob])
        if md5 and md5 not in known:
            known[md5] = _names(cache, md5, ids)
        if md5 and known[md5]:
            return Since(at, commit, KNOWN)
    return Since(None, None, UNKNOWN)


def _list_in(lock: bytes) -> str | None:
    """MD5 of the list of samples that a ``dvc.lock`` names."""
    try:
        outs = YAML(typ="safe").load(lock)["stages"]["split"]["outs"]
        return next((str(out["md5"]) for out in outs if out["path"] == f"{SPLIT}/samples.csv"), None)
    except (YAMLError, KeyError, TypeError):
        return None


def _names(cache: DvcCache, md5: str, ids: frozenset[str]) -> bool:
    """Whether a list that is still in the cache names one of some samples."""
    try:
        text = cache.read(md5).decode()
    except (FileNotFoundError, UnicodeDecodeError, ExpungeError):
        return False
    return any(row and row[0] in ids for row in csv.reader(io.StringIO(text, newline="")))
