"""A request that was carried out: its events, and what the ledger tells of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.requests.certificate import AttemptFacts, CertificateFacts, LineFacts, build, seal
from tasks.requests.excerpt import GENESIS, EventRecord
from tasks.requests.signing import PublicKey

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
PUBLIC, ANOTHER = PublicKey.of(KEY), PublicKey.of(OTHER)
BEFORE, AFTER, OLD, NEW = (letter * 64 for letter in "abcd")
SAMPLES = [{"id": "1" * 64, "path": "2" * 64}, {"id": "3" * 64, "path": "4" * 64}]
CONTENT = [{"pixels": "5" * 64, "file": "6" * 64}]
RECEIVED = {"requester": "crm:4711", "ground": "objection", "received_at": "2026-05-01T09:30:00.000000Z"}
DUE = "2026-08-01T09:30:00.000000Z"

WALK: list[tuple[str, Mapping[str, Any]]] = [
    ("received", {"channel": "cli", "due_at": "2026-06-01T09:30:00.000000Z"} | RECEIVED),
    ("validated", {"samples": SAMPLES, "already_erased_by": ["r0"]}),
    ("held", {"by": "ada", "reason": "lawsuit 12"}),
    ("released", {"by": "ada", "reason": "settled"}),
    ("extended", {"by": "ada", "reason": "many requests", "due_at": DUE}),
    ("approved", {"by": "bob"}),
    ("covered", {"batch": "batch-6", "samples": ["1" * 64]}),
    ("batched", {"batch": "batch-7"}),
    ("started", {"batch": "batch-7"}),
    ("audited", {"batch": "batch-7"}),
    ("started", {"batch": "batch-7"}),
    ("audited", {"batch": "batch-7", "content": CONTENT}),
    ("promoted", {"batch": "batch-7"}),
    ("purging", {"batch": "batch-7"}),
    ("purged", {"batch": "batch-7"}),
]

FIGURES = {"audit/auc": 0.75, "audit/auc/low": 0.5, "audit/auc/high": 1.0, "audit/count": 40.0}
TRIED = (
    AttemptFacts(
        method="salun", guarantee="approximate", started_at="2026-05-01T21:00:00.000000Z", weights=BEFORE,
        audited_at="2026-05-01T22:00:00.000000Z", verdict="remembers", decision="next", samples=40,
        figures=FIGURES,
    ),
    AttemptFacts(
        method="retrain", guarantee="exact", started_at="2026-05-01T23:00:00.000000Z", weights=AFTER,
        audited_at="2026-05-02T00:00:00.000000Z", verdict="indistinguishable", decision="promote", samples=19,
        figures=FIGURES,
    ),
)  # fmt: skip
FACTS = CertificateFacts(
    request="r1", weights=AFTER, method="retrain", guarantee="exact", version="4", weights_file="9" * 64,
    uri="models:/expunge/4", base_version="3", base_weights=BEFORE, due_at=DUE, samples=SAMPLES,
    content=CONTENT, already_erased_by=["r0"], attempts=TRIED, manifest_before={"samples.csv": OLD},
    manifest_after={"samples.csv": NEW}, commit_started="a" * 40, commit_promoted="b" * 40,
    commit_purged="c" * 40, lock="7" * 64, software="0.1.0", environment={"torch": "2.11.0", "threads": 2},
    checklist=[
        LineFacts(store="dvc cache", outcome="deleted", count=3, scope="objects of our stages"),
        LineFacts(store="git", outcome="kept-reported", scope="commits", detail="A person must look."),
        LineFacts(store="backups", outcome="cannot-be-reached", scope="outside of what is searched"),
    ],
    **RECEIVED,  # type: ignore[arg-type]  # texts all
)  # fmt: skip


def chained(walk: Iterable[tuple[str, Mapping[str, Any]]] = WALK, request: str = "r1") -> list[EventRecord]:
    """Return the request's events, with another request's after every third, so that there are gaps."""
    found: list[EventRecord] = []
    previous, seq = GENESIS, 0

    def append(kind: str, of: str, body: Mapping[str, Any]) -> EventRecord:
        nonlocal previous, seq
        seq += 1
        event = EventRecord(seq, f"2026-05-01T12:{seq:02}:00.000000Z", kind, of, body, previous, "")
        previous = event.digest()
        return dataclasses.replace(event, hash=previous)

    for number, (kind, body) in enumerate(walk):
        found.append(append(kind, request, body))
        if number % 3 == 2:
            append("received", f"other{number}", {"channel": "inbox"})
    return found


def envelope() -> dict[str, Any]:
    """Return the request's certificate."""
    return seal(build(FACTS, chained()), KEY)


def as_file(document: object) -> bytes:
    """Return the file of a certificate."""
    return json.dumps(document, indent=2).encode()


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a JSON value in which one part is another."""
    if not path:
        return new
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    made = {key: changed(item, path[1:], new) if key == path[0] else item for key, item in entries}
    return made if isinstance(value, dict) else list(made.values())


def part(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a part of a JSON value."""
    for key in path:
        value = value[key]
    return value


def paths(value: Any, here: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """Return where every part of a JSON value stands."""
    yield here
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in entries:
        yield from paths(item, (*here, key))
