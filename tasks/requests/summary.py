"""All requests summed up, for those who answer for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median
from typing import Any

from tasks.requests.desk import Request
from tasks.requests.ledger import latest, stamp


def summarise(requests: Sequence[Request], at: datetime) -> dict[str, Any]:
    """Return counts and times.

    Returns
    -------
    dict
        ``requests``; ``by status``, ``by ground``, ``by method``, ``by verdict`` as counts; of those closed,
        how many ``in time`` and ``late`` and the ``days to close`` (median, longest); ``overdue``: open ones.
    """
    closed = [request for request in requests if _at(request, "closed")]
    late = [request for request in closed if (_at(request, "closed") or "") > (request.due_at or "")]
    days = [_days(request) for request in closed]
    return {
        "requests": len(requests),
        "samples": sum(request.count or 0 for request in closed),
        "by status": _counted(str(request.state.status) for request in requests),
        "by ground": _counted(str(_value(request, "received", "ground")) for request in requests),
        "by method": _counted(str(_value(request, "promoted", "method")) for request in closed),
        "by guarantee": _counted(str(_value(request, "promoted", "guarantee")) for request in closed),
        "by verdict": _counted(str(_value(request, "audited", "verdict")) for request in closed),
        "closed in time": len(closed) - len(late),
        "closed late": len(late),
        "days to close": {"median": round(median(days), 2), "longest": round(max(days), 2)} if days else {},
        "overdue": sum(request.open and (request.due_at or "9") < stamp(at) for request in requests),
    }


def _at(request: Request, kind: str) -> str | None:
    event = latest(request.events, kind)
    return event.at if event else None


def _value(request: Request, kind: str, key: str) -> Any:
    event = latest(request.events, kind)
    return event.body.get(key) if event else None


def _days(request: Request) -> float:
    began = datetime.fromisoformat(request.received_at or request.events[0].at)
    return (datetime.fromisoformat(_at(request, "closed") or "") - began).total_seconds() / 86_400


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())
