"""The certificate of a request, made from the ledger, and the key that signs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.core.errors import ExpungeError
from tasks.requests import events as facts
from tasks.requests.certificate import AttemptFacts, CertificateFacts, LineFacts, build, write
from tasks.requests.chain import latest_event
from tasks.requests.events import GUARANTEES, Fact, OfBatch
from tasks.requests.excerpt import EventRecord
from tasks.requests.ledger import Ledger
from tasks.requests.production import origin_of
from tasks.requests.record import Record
from tasks.requests.request import Request
from tasks.requests.signing import KeyPeriod, PublicKey, periods, rotate, signing_key

F = TypeVar("F", bound=Fact)


def certify(record: Record, request: Request, folder: Path) -> Path:
    """Write the certificate of a request whose samples are purged; return its path.

    All that it says stood in the ledger when the samples were purged, so it is the same whenever it is made.
    """
    events = [EventRecord(**event.as_json()) for event in request.events]
    told = replace(facts_of(request), origin=_origin(record.ledger, request))
    return write(build(told, events), _signing_key(record), folder)


def _origin(ledger: Ledger, request: Request) -> dict[str, Any] | None:
    """What is stated of the weights that the model before is made of, where they were not trained here."""
    purged = latest_event(request.events, facts.Purged)
    started = [event for event in request.of_batch if purged and event.seq < purged.seq]
    attempt = latest_event(started, facts.Attempt)
    if attempt is None or not isinstance(attempt.fact, facts.Attempt):
        return None
    adoption = origin_of(ledger, attempt.fact.base.weights, attempt.seq)
    if adoption is None or not isinstance(adoption.fact, facts.Adopted) or adoption.fact.stated is None:
        return None
    return {
        "weights": adoption.fact.weights,
        "adopted_at": adoption.at,
        "event": {"seq": adoption.seq, "hash": adoption.hash},
        **adoption.fact.stated.model_dump(mode="json"),
    }


def facts_of(request: Request) -> CertificateFacts:
    """Return what the ledger tells of a request up to its purge.

    Raises
    ------
    ExpungeError
        If its samples are not purged.
    """
    purged = latest_event(request.events, facts.Purged)
    promotion = request.common(facts.Promotion)
    if purged is None or promotion is None:
        raise ExpungeError(f"request {request.id}: a certificate is made once its samples are purged")
    request = replace(request, of_batch=tuple(each for each in request.of_batch if each.seq < purged.seq))
    attempts = _told(request, facts.Attempt)
    audits = _told(request, facts.Audit)
    validated = request.latest(facts.Validated)
    purge = request.common(facts.Purge)
    first, audit = attempts[-1][1] if attempts else None, audits[-1][1] if audits else None
    return CertificateFacts(
        request=request.id,
        requester=request.received.requester,
        ground=request.received.ground,
        received_at=request.received_at,
        due_at=request.due_at,
        samples=validated.samples if validated else None,
        already_erased_by=validated.already_erased_by if validated else (),
        held_out=audited.held_out if (audited := request.latest(facts.Audited)) else 0,
        content=request.content or None,
        attempts=_attempts(attempts, audits),
        weights=promotion.weights,
        version=promotion.version,
        method=promotion.method,
        guarantee=promotion.guarantee,
        base_version=first.base.version if first else None,
        base_weights=first.base.weights if first else None,
        manifest_before=audit.manifest if audit else {},
        manifest_after=purge.manifest if purge else {},
        commit_started=first.commit if first else None,
        commit_promoted=promotion.commit,
        commit_purged=purge.commit if purge else None,
        lock=promotion.lock,
        software=audit.environment.get("expunge") if audit else None,
        environment={name: value for name, value in audit.environment.items() if name != "expunge"}
        if audit
        else {},
        checklist=[
            LineFacts(
                store=line.store, outcome=line.outcome or None, scope=line.scope,
                count=line.count if line.outcome else None, detail=line.detail,
            )
            for line in purge.checklist
        ] if purge else None,
    )  # fmt: skip


def _told(request: Request, fact: type[F]) -> list[tuple[str, F]]:
    """When and what every event of a kind tells of the request's batch, wherever the ledger has it."""
    found = [(event.at, event.fact) for event in request.of_batch if event.kind == fact.kind]
    if not found:  # a ledger of before told it in the request's own events
        own = [(event.at, event.fact) for event in request.events]
        found = [(at, told) for at, each in own if isinstance(each, OfBatch) and (told := each.of_batch())]
    return [(at, told) for at, told in found if isinstance(told, fact)]


def _attempts(
    attempts: Sequence[tuple[str, facts.Attempt]], audits: Sequence[tuple[str, facts.Audit]]
) -> list[AttemptFacts]:
    """Return each method that was tried, with the audit that followed it before the next began."""
    made = []
    for number, (at, attempt) in enumerate(attempts):
        until = attempts[number + 1][0] if number + 1 < len(attempts) else "9"
        after = ((when, found) for when, found in audits if at <= when <= until)
        audited, audit = next((each for each in after if each[1].method == attempt.method), (None, None))
        made.append(
            AttemptFacts(
                method=attempt.method,
                guarantee=GUARANTEES.get(attempt.method, "approximate"),
                started_at=at,
                audited_at=audited,
                weights=audit.weights.result if audit else None,
                verdict=audit.verdict if audit else None,
                decision=audit.decision if audit else None,
                samples=int(audit.figures.get("audit/count", 0)) if audit else 0,
                figures=audit.figures if audit else {},
            )
        )
    return made


def key_periods(ledger: Ledger) -> tuple[KeyPeriod, ...]:
    """Return every key that signed certificates, and from when to when; the last signs now."""
    recorded = ledger.events(kinds=(facts.KeyRecorded.kind, facts.KeyRotated.kind))
    return periods(
        (event.seq, PublicKey(event.fact.public_key), getattr(event.fact, "compromised", False))
        for event in recorded
        if isinstance(event.fact, facts.KeyRecorded | facts.KeyRotated)
    )


def _signing_key(record: Record) -> Ed25519PrivateKey:
    known = key_periods(record.ledger)
    key = signing_key(record.keys, known[-1].key if known else None)
    if not known:
        public = PublicKey.of(key)
        record.record(facts.KeyRecorded(key_id=public.key_id, public_key=public.hex))
    return key


def rotate_key(record: Record, *, by: str, reason: str, compromised: bool) -> PublicKey:
    """Replace the key that signs certificates; return the new one."""
    known = key_periods(record.ledger)
    old = known[-1].key if known else None

    def told(new: PublicKey) -> None:
        record.record(
            facts.KeyRotated(
                key_id=new.key_id,
                public_key=new.hex,
                replaces=old.hex if old else "",
                by=by,
                reason=reason,
                compromised=compromised,
            )
        )

    return PublicKey.of(rotate(record.keys, old, told))
