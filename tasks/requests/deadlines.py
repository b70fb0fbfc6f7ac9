"""When a request must be done: periods in months, by Regulation (EEC, Euratom) No 1182/71.

It is what "one month of receipt" in GDPR Art. 12(3) is counted by. Days are those of the controller's time
zone. The day of the event is not counted (Art. 3(1)), and a period ends with the expiry of the last hour of
the day that has the same date as that day, or of the month's last day where there is none (3(2)(c)); so one
received on 31 August, at whatever hour, is due when 30 September ends. Holidays and weekends within it are
counted (3(3)); if it would end on one, it ends with the next working day (3(4)). That a period holds two
working days (3(5)) needs no rule here: every month does.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tasks.core.errors import ExpungeError
from tasks.requests.settings import Settings, public_holidays

TICK = timedelta(microseconds=1)
"""What the ledger's clock resolves."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How days are counted.

    Attributes
    ----------
    zone
        Time zone of the controller.
    holidays
        Public holidays.
    working_days
        Whether a period that would end on a holiday or a weekend ends with the next working day.
    """

    zone: ZoneInfo
    holidays: Container[date] = frozenset()
    working_days: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that the settings state."""
        days = public_holidays(settings.holidays) if settings.holidays else frozenset()
        return cls(ZoneInfo(settings.timezone), days, settings.working_days)

    def day(self, instant: datetime) -> date:
        """Return the day on which an instant lies; times are shown to people by it."""
        if instant.tzinfo is None:
            raise ValueError(f"{instant} has no zone")
        return instant.astimezone(self.zone).date()

    def works(self, day: date) -> bool:
        """Whether it is a working day: none of public holidays, Sundays and Saturdays (Art. 2(2))."""
        return day.weekday() < 5 and day not in self.holidays


def due(received: datetime, months: int, rules: Rules) -> datetime:
    """Return the last instant of a period of months.

    Parameters
    ----------
    received
        When the request reached the controller, with its zone.
    months
        Length of the period.
    rules
        How days are counted.

    Returns
    -------
    datetime
        In UTC: the last microsecond of the last day, so that what is later is too late, and so that the
        day of the result, in the controller's zone, is the due date.

    Raises
    ------
    ExpungeError
        If the period reaches beyond the year 9999.
    """
    try:
        last = _months_after(rules.day(received), months)
        while rules.working_days and not rules.works(last):
            last += timedelta(days=1)
        return _end_of(last, rules.zone)
    except (OverflowError, ValueError):
        if received.tzinfo is None:
            raise
        raise ExpungeError(
            f"{months} month(s) after {received:%Y-%m-%d} there is no calendar; correct received_at"
        ) from None


def extended(received: datetime, months: int, extension: int, rules: Rules) -> datetime:
    """Return the last instant of a period that was extended, as :func:`due` does.

    "Two further months" (GDPR Art. 12(3)) make one period of three, counted from the receipt. Counted from
    where the first month ended, it would be longer wherever that end had moved to a working day.
    """
    return due(received, months + extension, rules)


def _months_after(day: date, months: int) -> date:
    year, month = divmod(12 * day.year + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _end_of(day: date, zone: ZoneInfo) -> datetime:
    # Where clocks change at midnight, fold 0 is the first of two midnights, and the change itself for none.
    following = datetime.combine(day + timedelta(days=1), time(), zone)
    return following.astimezone(UTC) - TICK
