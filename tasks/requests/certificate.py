"""The certificate of a closed request: what was done, told by the events of the ledger, signed.

It is made of nothing but the request's events, an environment and some digests, and holds all of them. So
whoever has the file can make its summary again and compare, on any machine, without ledger or repository.
That works as long as :func:`build` makes the same of the same events: a change of what it makes needs a new
:data:`SCHEMA`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from filelock import FileLock

from tasks.core.errors import RESTORE, ExpungeError
from tasks.core.files import read_json, write_text, write_whole
from tasks.reporting import pages
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import GENESIS, Event, Head, canonical, latest
from tasks.requests.states import state_of

SCHEMA = "expunge/certificate/1"

LARGEST = 64 * 2**20
"""Bytes of a certificate that is read."""

DECISIONS = frozenset({"approved", "refused", "held", "released", "extended", "retried"})

KINDS = {
    "id": "keyed digest (HMAC-SHA-256) of the sample's id",
    "path": "keyed digest (HMAC-SHA-256) of the place it was read from",
    "index": "keyed digest (HMAC-SHA-256) of its row in the source's training part",
}
"""What the digests of a sample are digests of."""

STATEMENT = (
    "This certificate records what was done to carry out the request: the samples that it names by digest "
    "were taken out of the data set that it names by digest, the model in use is now the one that it names "
    "as the one after, and the stores listed under purge were dealt with as stated there. It is the account "
    "of whoever signed it. It is no proof that the model has forgotten the samples."
)

STARTED = ("batch", "attempt", "method", "base", "flow_run", "commit")
AUDITED = ("verdict", "text", "reason", "decision", "why", "weights")
TRACED = ("pipeline", "runs", "params")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    what
        Name of the check.
    ok
        Whether it holds.
    how
        What was found, in words.
    """

    what: str
    ok: bool
    how: str


def build(
    request: str, events: Sequence[Event], *, environment: Mapping[str, Any], digests: Mapping[str, str]
) -> dict[str, Any]:
    """Return the certificate, not yet signed; the same arguments always make the same one.

    Parameters
    ----------
    request
        Its id.
    events
        The request's, oldest first. Those after ``purged`` are left out, so a second try makes the same.
    environment
        Versions of what ran; JSON values.
    digests
        Further digests that are to be attested, by name.

    Returns
    -------
    dict
        JSON values; ``docs/certificate.md`` describes them. What no event tells is ``None``.

    Raises
    ------
    ExpungeError
        If there is no event ``purged``: it is too early for a certificate.
    """
    if any(event.request != request for event in events):
        raise ValueError(f"there are events that are not of request {request}")
    kinds = [event.kind for event in events]
    if "purged" not in kinds:
        raise ExpungeError(f"request {request}: a certificate is made once its samples are purged")
    events = events[: kinds.index("purged") + 1]
    received, validated, promoted = (_last(events, kind) for kind in ("received", "validated", "promoted"))
    started, audited, purged = (_last(events, kind) for kind in ("started", "audited", "purged"))
    due = [event.body["due_at"] for event in events if "due_at" in event.body]
    return {
        "certificate": {"schema": SCHEMA, "request": request, "made_from": "events of the ledger"},
        "request": {
            **_pick(received, "requester", "ground", "received_at"),
            "due_at": due[-1] if due else None,
            "extended": any(event.kind == "extended" for event in events),
            "purged_at": events[-1].at,
            "decisions": [
                {"kind": event.kind, "at": event.at, **_pick(event.body, "by", "reason", "due_at")}
                for event in events
                if event.kind in DECISIONS
            ],
        },
        "samples": {
            "count": len(validated["samples"]) if "samples" in validated else None,
            "digests": validated.get("samples"),
            "kinds": KINDS,
            "already_erased_by": validated.get("already_erased_by"),
            "covered_by": [
                _pick(event.body, "batch", "samples") for event in events if event.kind == "covered"
            ],
        },
        "attempts": _attempts(events),
        "model": {
            "before": _pick(started.get("base") or {}, "version", "weights"),
            "after": _pick(promoted, "version", "weights"),
            "method": promoted.get("method"),
            "guarantee": _guarantee(promoted),
        },
        "audit": {
            "figures": _figures(audited.get("figures") or {}),
            **_pick(audited, "verdict", "text", "reason", "decision", "why"),
        },
        "data": {
            "before": audited.get("manifest"),
            "after": purged.get("manifest"),
            "content": promoted.get("content"),
        },
        "code": {
            "commits": {
                "started": started.get("commit"),
                "promoted": promoted.get("commit"),
                "purged": purged.get("commit"),
            },
            "lock": promoted.get("lock"),
            **_pick(audited, *TRACED),
            "run_environment": audited.get("environment"),
            "environment": dict(environment),
        },
        "purge": purged.get("checklist"),
        "ledger": {
            "events": [event.as_json() for event in events],
            "first": events[0].seq,
            "last": str(Head(events[-1].seq, events[-1].hash)),
        },
        "digests": dict(digests),
        "statement": STATEMENT,
    }


def _last(events: Sequence[Event], kind: str) -> Mapping[str, Any]:
    """Body of the last event of a kind; empty if there is none."""
    event = latest(events, kind)
    return event.body if event else {}


def _pick(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body.get(key) for key in keys}


def _attempts(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What each method of the chain did: an event ``started`` with the ``audited`` that follows it."""
    attempts: list[dict[str, Any]] = []
    for event in events:
        if event.kind == "started":
            blank = {"audited_at": None, **_pick({}, *AUDITED), "figures": {}}
            attempts.append({**_pick(event.body, *STARTED), "started_at": event.at, **blank})
        elif event.kind == "audited":
            figures = _figures(event.body.get("figures") or {})
            attempts[-1] |= {"audited_at": event.at, **_pick(event.body, *AUDITED), "figures": figures}
    return attempts


def _figures(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Gather ``x``, ``x/low`` and ``x/high`` under ``x``."""
    ends = {f"{name}/{end}" for name in flat for end in ("low", "high")}
    return {
        name: {"value": value, "low": flat.get(f"{name}/low"), "high": flat.get(f"{name}/high")}
        for name, value in flat.items()
        if name not in ends
    }


def _guarantee(promoted: Mapping[str, Any]) -> str | None:
    method, guarantee = promoted.get("method"), promoted.get("guarantee")
    if guarantee == "exact":
        return (
            "Exact: the model was trained from scratch on a data set without the samples; that holds by "
            "construction, if code and data are those that the digests name."
        )
    if guarantee == "approximate":
        return (
            f"Approximate: the method {method} changed the model that had been trained on the samples; only "
            "the audit's statistics speak for it, and nothing is guaranteed."
        )
    if guarantee == "covered":
        return (
            "As other batches gave it: they had erased every sample before, so this one did not change the "
            "model; what they guarantee stands in the certificates of their requests."
        )
    return None


def signing_key(keys: KeyStore) -> Ed25519PrivateKey:
    """Return the key that signs certificates; the first call makes it.

    Raises
    ------
    ExpungeError
        If its file is damaged.
    """
    path = keys.folder / "signing.pem"
    if not path.exists():
        _make_key(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ExpungeError(f"{path} is no Ed25519 key in PEM; restore it from the backup of the keys")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(path.with_name(".signing.lock")):
        if path.exists():  # another process was faster
            return
        with write_whole(path, private=True) as file:
            key = Ed25519PrivateKey.generate()
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def sign(document: Document, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the document with a signature over all else that it holds."""
    content = _unsigned(document)
    value = key.sign(canonical(content).encode())
    return content | {"signature": _signature(key.public_key(), value)}


def _unsigned(document: Document) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "signature"}


def _signature(key: Ed25519PublicKey, value: bytes) -> dict[str, str]:
    return {"algorithm": "Ed25519", "public_key": key.public_bytes_raw().hex(), "value": value.hex()}


def check(document: Any, *, public_key: str | None = None, anchors: Sequence[Head] = ()) -> list[Check]:
    """Check a certificate by itself: no ledger, no repository.

    Parameters
    ----------
    document
        What :func:`read` returned; whatever it is, this does not raise.
    public_key
        The signer's, 64 hex digits, from where it was published.
    anchors
        Heads of the ledger that were written down elsewhere.

    Returns
    -------
    list of Check
        The certificate is what its signer made of the ledger if all are ``ok``.
    """
    return [
        _tried("schema", lambda: _check_schema(document)),
        _tried("signature", lambda: f"made by {_signer(document)}"),
        _tried("signer", lambda: _check_signer(document, public_key)),
        _tried("events", lambda: _check_hashes(_events(document))),
        _tried("order", lambda: _check_order(_events(document))),
        _tried("states", lambda: _check_states(_events(document))),
        _tried("summary", lambda: _check_summary(document)),
        *(
            _tried(f"anchor {anchor.seq}", lambda anchor=anchor: _check_anchor(_events(document), anchor))  # type: ignore[misc]
            for anchor in anchors
        ),
    ]


def _tried(what: str, run: Callable[[], str]) -> Check:
    try:
        return Check(what, True, run())
    except ExpungeError as error:
        return Check(what, False, str(error))
    except Exception as error:  # a damaged document can go wrong in any way, and each means: not verified
        return Check(what, False, f"the document is damaged here ({type(error).__name__})")


def _check_schema(document: Document) -> str:
    if document["certificate"]["schema"] != SCHEMA:
        raise ExpungeError(f"this program reads {SCHEMA}; the document has another schema")
    return SCHEMA


def _signer(document: Document) -> str:
    """Return the public key of the signature, which is checked."""
    signature = document["signature"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
    value = bytes.fromhex(signature["value"])
    if signature != _signature(key, value):
        raise ExpungeError("the signature is not written as Ed25519, public_key, value in lower-case hex")
    try:
        key.verify(value, canonical(_unsigned(document)).encode())
    except InvalidSignature:
        raise ExpungeError("the document is not the one that was signed") from None
    return str(signature["public_key"])


def _check_signer(document: Document, public_key: str | None) -> str:
    signer = _signer(document)
    if public_key is None:
        return f"signed by {signer}; compare this key with the one that the operator published"
    if signer != public_key.strip().lower():
        raise ExpungeError(f"signed by {signer}, which is not the given key")
    return "signed by the given key"


def _events(document: Document) -> list[Event]:
    events = [Event(**entry) for entry in document["ledger"]["events"]]
    for event in events:
        if type(event.seq) is not int or not 0 < event.seq < 2**63:
            raise ExpungeError("an event's number is no whole number above 0")
    return events


def _check_hashes(events: Sequence[Event]) -> str:
    for event in events:
        if event.hash != event.digest():
            raise ExpungeError(f"event {event.seq} was changed: its content has another hash")
    return f"{len(events)} events have the hashes of their contents"


def _check_order(events: Sequence[Event]) -> str:
    _hashes(events)
    return "events ascend, and neighbours in the ledger are linked"


def _hashes(events: Sequence[Event]) -> dict[int, str]:
    """Hashes by number of all events that the given ones tell of: their own and their predecessors'.

    Raises
    ------
    ExpungeError
        If they do not ascend, or one does not follow its neighbour.
    """
    known = {0: GENESIS}
    last = 0
    for event in events:
        if event.seq <= last:
            raise ExpungeError(f"event {event.seq} stands after event {last}")
        if known.setdefault(event.seq - 1, event.previous) != event.previous:
            raise ExpungeError(f"event {event.seq} was not written after event {event.seq - 1} as it is here")
        last = event.seq
        known[last] = event.hash
    return known


def _check_states(events: Iterable[Event]) -> str:
    try:
        state = state_of(event.kind for event in events)
    except ExpungeError as error:
        raise ExpungeError(f"the request {error}") from None
    return f"the events lead to {state.status}, each allowed where it stands"


def _check_summary(document: Document) -> str:
    environment, digests = document["code"]["environment"], document["digests"]
    request = document["certificate"]["request"]
    made = build(request, _events(document), environment=environment, digests=digests)
    given = _unsigned(document)
    for part in dict.fromkeys([*made, *given]):
        if part not in made or part not in given or canonical(made[part]) != canonical(given[part]):
            raise ExpungeError(f"{part!r:.40} is not what the events tell")
    return "every part is what the events tell"


def _check_anchor(events: Sequence[Event], anchor: Head) -> str:
    known = _hashes(events).get(anchor.seq)
    if known is None:
        return f"not covered by this certificate: it does not hold event {anchor.seq}"
    if known != anchor.hash:
        raise ExpungeError(f"event {anchor.seq} is not the one that was anchored")
    return f"event {anchor.seq} is the one that was anchored"


def render(document: Document) -> str:
    """Return the certificate as a page of HTML that needs nothing else."""
    return pages.render(
        "certificate.html",
        {"document": document},
        filters={"number": _number, "indented": _indented},
        finalize=lambda value: "not recorded" if value is None else value,
    )


def _number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def write(document: Document, folder: Path) -> Path:
    """Write ``<request>.html`` and then ``<request>.json``, each whole; return the path of the latter."""
    path = folder / f"{document['certificate']['request']}.json"
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    write_text(path.with_suffix(".html"), render(document))
    write_text(path, text)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read a certificate's JSON.

    Raises
    ------
    ExpungeError
        If there is no such file, it is larger than :data:`LARGEST`, or it is no JSON object.
    """
    again = "get it again from where it was issued"
    if not path.is_file():
        raise ExpungeError(f"there is no file {path}; name the certificate's JSON")
    if path.stat().st_size > LARGEST:
        raise ExpungeError(f"{path} is larger than {LARGEST // 2**20} MiB, so it is no certificate; {again}")
    try:
        document = read_json(path)
    except ExpungeError as error:
        raise ExpungeError(f"{str(error).removesuffix(RESTORE)}{again}") from None
    if not isinstance(document, dict):
        raise ExpungeError(f"{path} holds no JSON object, so it is no certificate; {again}")
    return document
