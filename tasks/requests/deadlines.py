"""When a request must be done."""

from __future__ import annotations

from datetime import datetime

from dateutil.relativedelta import relativedelta

from tasks.requests.settings import Settings


def due(received: datetime, settings: Settings) -> datetime:
    """Return the due date of a request received then."""
    return received + relativedelta(months=settings.due_months)


def extended_due(received: datetime, settings: Settings) -> datetime:
    """Return the due date once it was extended."""
    return received + relativedelta(months=settings.due_months + settings.extension_months)
