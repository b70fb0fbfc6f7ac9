"""All requests summed up, for those who answer for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from statistics import median
from typing import Any

from tasks.requests import events as facts
from tasks.requests.chain import stamp
from tasks.requests.desk import Desk
from tasks.requests.events import Fact, OfBatch
from tasks.requests.states import Status


def summarise(desk: Desk, at: datetime) -> dict[str, Any]:
    """Return counts and times.

    Returns
    -------
    dict
        ``requests``; ``by status``, ``by ground``, ``by method``, ``by verdict`` as counts; of those closed,
        how many ``in time`` and ``late`` and the ``days to close`` (median, longest); ``overdue``: open ones.
    """
    rows = desk.rows()
    kinds = (facts.Closed, facts.Promotion, facts.Audit, facts.Promoted, facts.Audited)
    closed_at: dict[str, str] = {}
    told: dict[tuple[str, type[Fact]], Fact] = {}
    for event in desk.ledger.events(kinds=[kind.kind for kind in kinds]):
        subject, fact = event.request or "", event.fact
        if isinstance(fact, facts.Closed):
            closed_at[subject] = event.at
        whole = fact.of_batch() if isinstance(fact, OfBatch) else fact
        if whole is not None:
            told[subject, type(whole)] = whole
    closed = [row for row in rows if row.status is Status.CLOSED]

    def of(row: Any, kind: type[Fact], name: str) -> str:
        fact = told.get((row.batch or "", kind)) or told.get((row.request, kind))
        return str(getattr(fact, name, None))

    late = [row for row in closed if closed_at[row.request] > (row.due_at or "")]
    days = [_days(row.received_at or "", closed_at[row.request]) for row in closed]
    return {
        "requests": len(rows),
        "samples": sum(row.samples or 0 for row in closed),
        "by status": _counted(str(row.status) for row in rows),
        "by ground": _counted(str(row.ground) for row in rows),
        "by method": _counted(of(row, facts.Promotion, "method") for row in closed),
        "by guarantee": _counted(of(row, facts.Promotion, "guarantee") for row in closed),
        "by verdict": _counted(of(row, facts.Audit, "verdict") for row in closed),
        "closed in time": len(closed) - len(late),
        "closed late": len(late),
        "days to close": {"median": round(median(days), 2), "longest": round(max(days), 2)} if days else {},
        "overdue": sum(row.open and (row.due_at or "9") < stamp(at) for row in rows),
    }


def _days(received_at: str, closed_at: str) -> float:
    began, ended = datetime.fromisoformat(received_at), datetime.fromisoformat(closed_at)
    return (ended - began).total_seconds() / 86_400


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
