"""The certificate of a closed request: what was done, told by the events of the ledger, signed.

It is a DSSE envelope (``<request>.json``) around an in-toto statement, so that other tools can read it, with
a page to read and print (``<request>.html``). All that it says was recorded when it happened, and Ed25519
draws no random number: made again from the same ledger, by the same key, it is the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # public, by its documentation

from tasks.core.errors import ExpungeError
from tasks.core.files import write_text
from tasks.reporting import pages
from tasks.requests import predicate
from tasks.requests.agreement import DECISIONS, check_summary
from tasks.requests.excerpt import EventRecord, canonical
from tasks.requests.origin import unknown
from tasks.requests.predicate import PAYLOAD_TYPE, SHARED, Scalar, Statement
from tasks.requests.signing import PublicKey

OWN: Mapping[str, frozenset[str]] = {
    kind: frozenset(keys.split())
    for kind, keys in {
        "received": "channel flow_run requester ground received_at due_at",
        "validated": "samples already_erased_by classes subjects shared near_copies by_features",
        "behind": "first",
        "advanced": "first",
        "duplicate": "first already_erased_by",
        "covered": "batch samples content",
        "batched": "batch",
        "unbatched": "batch",
        "started": "batch",
        "audited": "batch content held_out",
        "promoting": "batch",
        "promoted": "batch",
        "purging": "batch",
        "purged": "batch",
        "failed": "batch code",
        **dict.fromkeys(DECISIONS, "by reason due_at standing"),
    }.items()
}
"""What an event may tell of its request alone. The content of one that tells more (of its batch, as ledgers
of before did, or whatever is added later) is left out; its hash stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """A method that was tried.

    ``samples`` is how many samples the audit attacked, ``figures`` what it measured on them, flat, with the
    ends of ``x``'s interval as ``x/low`` and ``x/high``; all else is as in
    :class:`~tasks.requests.predicate.Attempt`.
    """

    method: str
    guarantee: str
    started_at: str | None = None
    audited_at: str | None = None
    weights: str | None = None
    verdict: str | None = None
    decision: str | None = None
    samples: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFacts:
    """A line of the checklist of the purge, as in :class:`~tasks.requests.predicate.Line`."""

    store: str
    outcome: str | None
    count: int | None = None
    scope: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFacts:
    """What the ledger tells of a request and of its batch.

    What has a default may be missing in a ledger of before. ``weights_file`` is the SHA-256 of the file of
    weights, ``uri`` where a registry has the model; ``software`` the version of expunge and ``environment``
    the versions of all else, both as they were recorded with the audit and not as they are now.
    ``manifest_before`` and ``manifest_after`` are SHA-256 by name of file. ``origin`` is all of
    :class:`~tasks.requests.predicate.Origin` but what is not known. All else is as in
    :class:`~tasks.requests.predicate.Erasure`.
    """

    request: str
    weights: str
    method: str
    guarantee: str
    version: str | None = None
    weights_file: str | None = None
    uri: str | None = None
    base_version: str | None = None
    base_weights: str | None = None
    requester: str | None = None
    ground: str | None = None
    received_at: str | None = None
    due_at: str | None = None
    samples: Sequence[Mapping[str, str]] | None = None
    content: Sequence[Mapping[str, str]] | None = None
    already_erased_by: Sequence[str] = ()
    held_out: int = 0
    attempts: Sequence[AttemptFacts] = ()
    manifest_before: Mapping[str, str] = field(default_factory=dict)
    manifest_after: Mapping[str, str] = field(default_factory=dict)
    commit_started: str | None = None
    commit_promoted: str | None = None
    commit_purged: str | None = None
    lock: str | None = None
    software: str | None = None
    environment: Mapping[str, Scalar] = field(default_factory=dict)
    checklist: Sequence[LineFacts] | None = None
    origin: Mapping[str, Any] | None = None


def build(facts: CertificateFacts, events: Sequence[EventRecord]) -> Statement:
    """Return what is to be signed; the same arguments always make the same.

    Parameters
    ----------
    facts
        What the ledger tells of the request and its batch.
    events
        The request's own events, oldest first. Those after ``purged`` are left out, so a certificate that is
        made again is the same. The content of those that tell of others is left out (:data:`OWN`).

    Raises
    ------
    ExpungeError
        If the samples are not purged yet, or the facts are none that a certificate can hold, or other than
        the events tell.
    """
    if any(event.request != facts.request for event in events):
        raise ValueError(f"there are events that are not of request {facts.request}")
    kinds = [event.kind for event in events]
    if "purged" not in kinds:
        raise ExpungeError(f"request {facts.request}: a certificate is made once its samples are purged")
    events = events[: kinds.index("purged") + 1]
    value = {
        "_type": predicate.STATEMENT_TYPE,
        "subject": _subjects(facts),
        "predicateType": predicate.PREDICATE_TYPE,
        "predicate": _erasure(facts, events),
    }
    try:
        statement = Statement.model_validate_json(canonical(value))
        check_summary(statement.predicate)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ExpungeError(
            f"request {facts.request}: the ledger tells what no certificate can hold: {where}: {first['msg']}"
        ) from None
    except ExpungeError as error:
        raise ExpungeError(f"request {facts.request}: the ledger contradicts itself: {error}") from None
    return statement


def _subjects(facts: CertificateFacts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"name": "weights", "digest": {"sha256": facts.weights}}]
    if facts.uri:
        found[0]["uri"] = facts.uri
    if facts.weights_file:
        found.append({"name": "file", "digest": {"sha256": facts.weights_file}})
    return found


def _erasure(facts: CertificateFacts, events: Sequence[EventRecord]) -> dict[str, Any]:
    told = [_own(event) for event in events]
    digests = [*(facts.samples or ()), *(facts.content or ())]
    kinds = sorted({kind for entry in digests for kind in entry})
    return {
        "request": {
            "id": facts.request, "requester": facts.requester, "ground": facts.ground,
            "received_at": facts.received_at, "due_at": facts.due_at,
            "extended": any(event.kind == "extended" for event in events), "purged_at": events[-1].at,
        },
        "decisions": [
            {"kind": event.kind, "at": event.at}
            | {key: (body or {}).get(key) for key in ("by", "reason", "due_at")}
            for event, body in told
            if event.kind in DECISIONS
        ],
        "samples": {
            "count": None if facts.samples is None else len(facts.samples),
            "digests": _plain(facts.samples),
            "content": _plain(facts.content),
            "kinds": {kind: predicate.KINDS.get(kind, "keyed digest (HMAC-SHA-256)") for kind in kinds},
            "already_erased_by": list(facts.already_erased_by),
            **({"held_out": facts.held_out} if facts.held_out else {}),
            "covered_by": [
                {"batch": body.get("batch"), "samples": body.get("samples", [])}
                for event, body in told
                if event.kind == "covered" and body is not None
            ],
        },
        "attempts": [_attempt(number, each) for number, each in enumerate(facts.attempts, 1)],
        "model": {
            "before": {"version": facts.base_version, "weights": facts.base_weights},
            "after": {"version": facts.version, "weights": facts.weights},
            "method": facts.method, "guarantee": facts.guarantee,
            "meaning": predicate.GUARANTEES.get(facts.guarantee, ""),
            "origin": facts.origin and {
                **facts.origin, "unknown": unknown(facts.origin, facts.base_weights, facts.guarantee)
            },
        },
        "data": {"before": dict(facts.manifest_before), "after": dict(facts.manifest_after)},
        "code": {
            "started": facts.commit_started, "promoted": facts.commit_promoted, "purged": facts.commit_purged,
            "lock": facts.lock, "software": facts.software, "environment": dict(facts.environment),
        },
        "purge": None if facts.checklist is None else [
            {"store": line.store, "outcome": line.outcome, "count": line.count, "scope": line.scope,
             "detail": line.detail}
            for line in facts.checklist
        ],
        "ledger": {
            "events": [
                {"seq": event.seq, "at": event.at, "kind": event.kind, "body": body,
                 "previous": event.previous, "hash": event.hash}
                for event, body in told
            ],
            "head": {"seq": events[-1].seq, "hash": events[-1].hash},
        },
        "statement": predicate.STATEMENT,
    }  # fmt: skip


def _own(event: EventRecord) -> tuple[EventRecord, dict[str, Any] | None]:
    """Return an event with its content, if that is of its request alone."""
    if event.body is None or not event.body.keys() <= OWN.get(event.kind, frozenset()):
        return event, None
    return event, dict(event.body)


def _plain(digests: Sequence[Mapping[str, str]] | None) -> list[dict[str, str]] | None:
    return None if digests is None else [dict(entry) for entry in digests]


def _attempt(number: int, facts: AttemptFacts) -> dict[str, Any]:
    given = bool(facts.figures) and facts.samples >= SHARED
    ends = {f"{name}/{end}" for name in facts.figures for end in ("low", "high")}
    figures = {
        name: {
            "value": value,
            "low": facts.figures.get(f"{name}/low"),
            "high": facts.figures.get(f"{name}/high"),
        }
        for name, value in facts.figures.items()
        if name not in ends
    }
    return {
        "number": number, "method": facts.method, "guarantee": facts.guarantee,
        "started_at": facts.started_at, "audited_at": facts.audited_at, "weights": facts.weights,
        "verdict": facts.verdict, "decision": facts.decision,
        "samples": facts.samples if given else None, "figures": figures if given else {},
        "note": predicate.FIGURES_OF_BATCH if given else predicate.NO_FIGURES,
    }  # fmt: skip


def payload(statement: Statement) -> bytes:
    """Return the bytes that are signed: canonical JSON."""
    return canonical(statement.as_json()).encode()


def seal(statement: Statement, key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the signed envelope, as JSON values."""
    envelope = Envelope(payload(statement), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(key))
    return dict(envelope.to_dict())


def write(statement: Statement, key: Ed25519PrivateKey, folder: Path) -> Path:
    """Write ``<request>.html`` and then ``<request>.json``, each whole; return the path of the latter."""
    path = folder / f"{statement.predicate.request.id}.json"
    text = json.dumps(seal(statement, key), indent=2, allow_nan=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text(path.with_suffix(".html"), render(statement, PublicKey.of(key), digest))
    write_text(path, text)
    return path


def render(statement: Statement, signer: PublicKey, digest: str) -> str:
    """Return the certificate as a page of HTML that needs nothing else.

    Parameters
    ----------
    statement
        What was signed.
    signer
        The key that signed it.
    digest
        SHA-256 of the file that holds the envelope.
    """
    return pages.render(
        "certificate.html",
        {"statement": statement.as_json(), "signer": signer, "digest": digest, "kinds": predicate.KINDS},
        filters={"number": _number, "day": _day, "words": _words},
        finalize=lambda value: "not recorded" if value is None or value == "" else value,
    )


def _number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _day(stamp: str | None) -> str | None:
    """``2026-05-01 09:30 UTC`` of a time in the ledger; the JSON has it to the microsecond."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else None


def _words(code: str | None) -> str | None:
    """``nothing found`` of ``nothing-found``."""
    return code.replace("-", " ").replace("_", " ") if code else None
