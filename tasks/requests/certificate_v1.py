"""Certificates of before (``expunge/certificate/1``): JSON with a signature over all else that it holds.

None is made any more; those that were handed out can still be checked. Their summary is made again from the
events that they hold, so :func:`_summary` stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.core.errors import ExpungeError
from tasks.requests.excerpt import EventRecord, canonical, check_hashes, check_order

SCHEMA = "expunge/certificate/1"

DECISIONS = frozenset({"approved", "refused", "held", "released", "extended", "retried"})
KINDS = {
    "id": "keyed digest (HMAC-SHA-256) of the sample's id",
    "path": "keyed digest (HMAC-SHA-256) of the place it was read from",
    "index": "keyed digest (HMAC-SHA-256) of its row in the source's training part",
}
STATEMENT = (
    "This certificate records what was done to carry out the request: the samples that it names by digest "
    "were taken out of the data set that it names by digest, the model in use is now the one that it names "
    "as the one after, and the stores listed under purge were dealt with as stated there. It is the account "
    "of whoever signed it. It is no proof that the model has forgotten the samples."
)
STARTED = ("batch", "attempt", "method", "base", "flow_run", "commit")
AUDITED = ("verdict", "text", "reason", "decision", "why", "weights")
TRACED = ("pipeline", "runs", "params")

STEPS: Mapping[str, tuple[frozenset[str], str]] = {
    "validated": (frozenset({"received"}), "validated"),
    "approved": (frozenset({"validated"}), "approved"),
    "batched": (frozenset({"validated", "approved"}), "batched"),
    "started": (frozenset({"batched", "audited"}), "running"),
    "audited": (frozenset({"running"}), "audited"),
    "promoted": (frozenset({"audited"}), "promoted"),
    "purged": (frozenset({"promoted"}), "purged"),
    "failed": (frozenset({"batched", "running", "audited", "promoted", "purged"}), "failed"),
}
"""What may happen to a request in which status, and the status that it leads to."""

UNHELD = frozenset({"held", "validated", "approved", "batched", "purged", "retried"})
"""What may not happen to a request on legal hold."""

Document = Mapping[str, Any]


def is_of_this_kind(document: object) -> bool:
    """Whether a document is one of these certificates, or was meant to be."""
    return isinstance(document, Mapping) and "certificate" in document


def claims(document: Document) -> dict[str, Callable[[], str]]:
    """Return what is to be checked: each function says what it found, and raises what is wrong."""
    return {
        "schema": lambda: _check_schema(document),
        "signature": lambda: f"made by {signer(document)}",
        "events": lambda: check_hashes(events(document)),
        "order": lambda: check_order(events(document)),
        "states": lambda: _check_states(events(document)),
        "summary": lambda: _check_summary(document),
    }


def signer(document: Document) -> str:
    """Return the public key of the signature, which is checked.

    Raises
    ------
    ExpungeError
        If the signature is not this document's.
    """
    signature = document["signature"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
    value = bytes.fromhex(signature["value"])
    expected = {"algorithm": "Ed25519", "public_key": key.public_bytes_raw().hex(), "value": value.hex()}
    if signature != expected:
        raise ExpungeError("the signature is not written as Ed25519, public_key, value in lower-case hex")
    try:
        key.verify(value, canonical(_unsigned(document)).encode())
    except InvalidSignature:
        raise ExpungeError("the document is not the one that was signed") from None
    return expected["public_key"]


def events(document: Document) -> list[EventRecord]:
    """Return the events that it holds, oldest first."""
    found = [EventRecord(**entry) for entry in document["ledger"]["events"]]
    if any(not isinstance(event.body, Mapping) for event in found):
        raise ExpungeError("an event has no content")
    return found


def _unsigned(document: Document) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "signature"}


def _check_schema(document: Document) -> str:
    if document["certificate"]["schema"] != SCHEMA:
        raise ExpungeError(f"this program reads {SCHEMA} and certificates of today; this is neither")
    return f"{SCHEMA}, the form of before"


def _check_states(entries: Sequence[EventRecord]) -> str:
    status, before, held, extended = "", "", False, False
    for event in entries:
        kind = event.kind
        sources, target = STEPS.get(kind, (frozenset({status} - {""}), status))
        if kind == "received":
            sources, target = frozenset({""}), "received"
        elif kind == "retried":
            sources, target = frozenset({"failed"}), before
        elif kind not in STEPS and kind not in {"held", "released", "extended", "covered"}:
            raise ExpungeError(f"event {event.seq} is of no kind that leads to a certificate")
        unheld = kind == "released" and not held
        if status not in sources or (held and kind in UNHELD) or unheld or (extended and kind == "extended"):
            raise ExpungeError(f"event {event.seq} could not happen where it stands")
        held = kind == "held" or (held and kind != "released")
        extended = extended or kind == "extended"
        if kind == "failed":
            before = status
        status = target
    return f"the events lead to {status}, each allowed where it stands"


def _check_summary(document: Document) -> str:
    environment, digests = document["code"]["environment"], document["digests"]
    made = _summary(document["certificate"]["request"], events(document), environment, digests)
    given = _unsigned(document)
    for part in dict.fromkeys([*made, *given]):
        if part not in made or part not in given or canonical(made[part]) != canonical(given[part]):
            raise ExpungeError(f"{part!r:.40} is not what the events tell")
    return "every part is what the events tell"


def _summary(
    request: str, entries: Sequence[EventRecord], environment: Document, digests: Document
) -> dict[str, Any]:
    if any(event.request != request for event in entries):
        raise ExpungeError("there are events of another request")
    if entries[-1].kind != "purged" or [event.kind for event in entries].count("purged") > 1:
        raise ExpungeError("'ledger' is not what the events tell: a certificate ends with the purge")
    received, validated, promoted = (_last(entries, kind) for kind in ("received", "validated", "promoted"))
    started, audited, purged = (_last(entries, kind) for kind in ("started", "audited", "purged"))
    bodies = [(event, event.body or {}) for event in entries]
    due = [body["due_at"] for _, body in bodies if "due_at" in body]
    return {
        "certificate": {"schema": SCHEMA, "request": request, "made_from": "events of the ledger"},
        "request": {
            **_pick(received, "requester", "ground", "received_at"),
            "due_at": due[-1] if due else None,
            "extended": any(event.kind == "extended" for event in entries),
            "purged_at": entries[-1].at,
            "decisions": [
                {"kind": event.kind, "at": event.at, **_pick(body, "by", "reason", "due_at")}
                for event, body in bodies
                if event.kind in DECISIONS
            ],
        },
        "samples": {
            "count": len(validated["samples"]) if "samples" in validated else None,
            "digests": validated.get("samples"),
            "kinds": KINDS,
            "already_erased_by": validated.get("already_erased_by"),
            "covered_by": [
                _pick(body, "batch", "samples") for event, body in bodies if event.kind == "covered"
            ],
        },
        "attempts": _attempts(bodies),
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
            "events": [{name: getattr(event, name) for name in EventRecord.__slots__} for event in entries],
            "first": entries[0].seq,
            "last": f"{entries[-1].seq}:{entries[-1].hash}",
        },
        "digests": dict(digests),
        "statement": STATEMENT,
    }


def _last(entries: Sequence[EventRecord], kind: str) -> Mapping[str, Any]:
    """Body of the last event of a kind; empty if there is none."""
    return next((event.body or {} for event in reversed(entries) if event.kind == kind), {})


def _pick(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: body.get(key) for key in keys}


def _attempts(bodies: Iterable[tuple[EventRecord, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    attempts: list[dict[str, Any]] = []
    for event, body in bodies:
        if event.kind == "started":
            blank = {"audited_at": None, **_pick({}, *AUDITED), "figures": {}}
            attempts.append({**_pick(body, *STARTED), "started_at": event.at, **blank})
        elif event.kind == "audited":
            figures = _figures(body.get("figures") or {})
            attempts[-1] |= {"audited_at": event.at, **_pick(body, *AUDITED), "figures": figures}
    return attempts


def _figures(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
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
