"""Ledgers that are filled fast, and ledgers such as the first release wrote."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import create_engine, insert
from sqlalchemy.pool import NullPool

from tasks.requests import events as facts
from tasks.requests.chain import Event, Head, canonical, stamp
from tasks.requests.desk import Desk
from tasks.requests.events import Fact
from tasks.requests.keys import reference
from tasks.requests.ledger import EVENTS, Ledger, Writer

Told = tuple[str, str | None, Mapping[str, Any]]
"""Kind, subject and body of an event."""


def write(ledger: Ledger, url: str, told: Iterable[Told], at: datetime) -> Head:
    """Write events without asking whether they may happen, a second after each other; return the end."""
    with ledger.writing():
        pass  # makes the tables
    head = ledger.head()
    entries = iter(told)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        while some := list(islice(entries, 5000)):
            rows = []
            for kind, subject, body in some:
                seq = head.seq + 1
                when = stamp(at + timedelta(seconds=seq))
                event = Event(seq, when, kind, subject, canonical(body), head.hash).sealed()
                head = Head(seq, event.hash)
                rows.append(
                    {
                        "seq": seq, "at": when, "kind": kind, "request": subject, "body": event.text,
                        "previous": event.previous, "hash": event.hash,
                    }
                )  # fmt: skip
            connection.execute(insert(EVENTS), rows)
    return head


def closed(desk: Desk, count: int, at: datetime, *, per_batch: int = 20) -> Iterator[Told]:
    """Tell of requests for one sample each that were carried out and closed, so many a batch."""
    desk.keys.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for start in range(0, count, per_batch):
        batch = f"batch-20260101-{start:08x}"
        names = [f"20260101-{number:08x}" for number in range(start, min(count, start + per_batch))]
        own: dict[str, list[Fact]] = {}
        for number, name in enumerate(names, start=start):
            key = secrets.token_bytes(32)
            (desk.keys.folder / f"{name}.key").write_bytes(key)
            sample = {
                "id": f"train/gone-{number}.png",
                "path": f"gone.parquet#{number}",
                "index": str(10**6 + number),
            }
            digests = {kind: reference(key, kind, value) for kind, value in sample.items()}
            content = ({kind: reference(key, kind, name) for kind in ("pixels", "file")},)
            own[name] = [
                facts.Received(
                    channel="cli", requester=f"crm:{number}", ground="consent-withdrawn",
                    received_at=stamp(at + timedelta(minutes=number)),
                    due_at=stamp(at + timedelta(days=31, minutes=number)),
                ),
                facts.Validated(samples=(digests,)),
                facts.Batched(batch=batch),
                facts.Started(batch=batch),
                facts.Audited(batch=batch, content=content),
                facts.Promoted(batch=batch),
                facts.Purging(batch=batch),
                facts.Purged(batch=batch),
                facts.Closed(batch=batch, certificate=secrets.token_hex(32)),
            ]  # fmt: skip
        shared: dict[int, Fact] = {
            2: facts.Opened(requests=len(names), samples=len(names), checkout=secrets.token_hex(16)),
            3: facts.Attempt(attempt=1, method="none", base=base(start), members=secrets.token_hex(32)),
            4: audit(),
            5: facts.Promotion(method="none", guarantee="approximate", weights=base(start + 1).weights),
            7: facts.Purge(checklist=tuple(line(number) for number in range(20))),
        }
        for step in range(9):
            if step in shared:
                yield shared[step].kind, batch, shared[step].body()
            for name, told in own.items():
                yield told[step].kind, name, told[step].body()


def base(number: int) -> facts.Base:
    return facts.Base(version=str(number), weights=f"{number:064x}")


def audit() -> facts.Audit:
    """An audit of the size that real ones have."""
    return facts.Audit(
        method="none",
        verdict="indistinguishable",
        text="The attack's AUC on the result differs from one half by +0.010 [−0.020, +0.040].",
        decision="promote",
        why="what the attack finds is within the margin",
        weights=facts.Weights(original=f"{1:064x}", result=f"{2:064x}"),
        figures={f"audit/figure_{number}": number / 7 for number in range(10)},
        runs={stage: secrets.token_hex(16) for stage in ("split", "train", "unlearn", "finetune", "audit")},
        params={f"section{number}": {f"key{key}": key for key in range(8)} for number in range(8)},
        manifest={name: secrets.token_hex(32) for name in ("samples.csv", "manifest.csv")},
        environment={f"library{number}": "1.2.3" for number in range(10)},
    )


def line(number: int) -> facts.ChecklistLine:
    return facts.ChecklistLine(
        store=f"store {number}", item="samples", result="nothing found", how="every file's path and content"
    )


def append(writer: Writer, subject: str, *told: Fact) -> None:
    for fact in told:
        writer.append(fact, subject)
