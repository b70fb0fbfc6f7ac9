from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import holidays
import pytest

from tasks.core.errors import ExpungeError
from tasks.requests.deadlines import Rules, due, extended
from tasks.requests.settings import Settings

MEMBERS = (
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
    "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
)  # fmt: skip


def rules(zone: str = "UTC", holidays: str | None = None, working_days: bool = True) -> Rules:
    return Rules.of(Settings(timezone=zone, holidays=holidays, working_days=working_days))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("received", "last"),
    [
        # worked examples of supervisory authorities (ICO, right of access, after CJEU C-171/03 Toeters)
        ("2019-09-03", "2019-10-03"),
        ("2019-08-01", "2019-09-02"),  # 1 September 2019 is a Sunday
        ("2018-09-21", "2018-10-22"),  # 21 October 2018 is a Sunday
        ("2021-08-31", "2021-09-30"),
        ("2022-03-31", "2022-05-02"),  # 30 April 2022 is a Saturday
        ("2023-01-31", "2023-02-28"),
        ("2024-01-31", "2024-02-29"),
        ("2024-01-30", "2024-02-29"),
        ("2023-01-29", "2023-02-28"),
        ("2024-02-29", "2024-03-29"),
        ("2025-12-31", "2026-02-02"),  # 31 January 2026 is a Saturday
        ("2025-12-15", "2026-01-15"),
    ],
)
def test_a_month_ends_on_the_same_date_or_on_the_last_day_and_then_on_a_working_day(
    received: str, last: str
) -> None:
    for hour in ("00:00:00", "12:00:00", "23:59:59.999999"):
        found = due(at(f"{received}T{hour}+00:00"), 1, rules())
        assert found == at(f"{last}T23:59:59.999999+00:00")
        assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("received", "code", "last"),
    [
        ("2026-04-01", None, "2026-05-01"),
        ("2026-04-01", "DE", "2026-05-04"),  # labour day is a Friday, then a weekend
        ("2025-11-25", "DE", "2025-12-29"),  # both days of Christmas, then a weekend
        ("2025-11-24", "DE", "2025-12-24"),  # Christmas Eve is none
        ("2026-02-06", "DE", "2026-03-06"),
        ("2026-02-08", "DE-BE", "2026-03-09"),  # International Women's Day is a Sunday
        ("2027-02-08", "DE-BE", "2027-03-09"),  # and a Monday, in Berlin
        ("2027-02-08", "DE-BY", "2027-03-08"),  # but not in Bavaria
        ("2026-03-03", "DE", "2026-04-07"),  # Good Friday to Easter Monday
        ("2021-11-25", "GB-ENG", "2021-12-29"),  # Christmas on a weekend: two days in lieu
    ],
)
def test_a_period_does_not_end_on_a_public_holiday(received: str, code: str | None, last: str) -> None:
    assert due(at(f"{received}T09:00:00+00:00"), 1, rules(holidays=code)) == at(
        f"{last}T23:59:59.999999+00:00"
    )


def test_the_shift_to_a_working_day_can_be_switched_off() -> None:
    strict = rules(holidays="DE", working_days=False)
    assert due(at("2026-04-01T09:00:00+00:00"), 1, strict) == at("2026-05-01T23:59:59.999999+00:00")
    assert due(at("2026-04-02T09:00:00+00:00"), 1, strict) == at("2026-05-02T23:59:59.999999+00:00")


@pytest.mark.parametrize(
    ("received", "zone", "instant"),
    [
        # the day of receipt is the zone's: 28 February in UTC is 1 March in Berlin, and ends in summer time
        ("2026-02-28T23:30:00+00:00", "Europe/Berlin", "2026-04-01T21:59:59.999999+00:00"),
        ("2026-02-28T22:30:00+00:00", "Europe/Berlin", "2026-03-30T21:59:59.999999+00:00"),
        # summer time ends meanwhile
        ("2026-10-12T08:00:00+02:00", "Europe/Berlin", "2026-11-12T22:59:59.999999+00:00"),
        # the last day is the one on which clocks change
        ("2026-02-28T12:00:00+01:00", "Europe/Berlin", "2026-03-30T21:59:59.999999+00:00"),
        # west of Greenwich the day ends in UTC's next; 1 June in UTC is 31 May there
        ("2026-06-01T03:00:00+00:00", "America/New_York", "2026-07-01T03:59:59.999999+00:00"),
        # a zone that is a day ahead
        ("2026-01-30T10:30:00+00:00", "Pacific/Kiritimati", "2026-03-02T09:59:59.999999+00:00"),
    ],
)
def test_days_are_those_of_the_controllers_zone(received: str, zone: str, instant: str) -> None:
    found = due(at(received), 1, rules(zone))
    assert found == at(instant)
    local = found.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute, local.second) == (23, 59, 59)


@pytest.mark.parametrize(
    ("received", "months", "zone", "instant"),
    [
        # Santiago skips midnight on 6 September 2026: Saturday the 5th ends when it would be 24:00
        ("2026-08-05T12:00:00-04:00", 1, "America/Santiago", "2026-09-06T03:59:59.999999+00:00"),
        # and on 4 April it has 23:00 twice: the second one ends the day
        ("2026-03-04T12:00:00-03:00", 1, "America/Santiago", "2026-04-05T03:59:59.999999+00:00"),
        # in Havana midnight comes twice on 1 November 2026: the 31st ends with the first
        ("2026-08-31T12:00:00-04:00", 2, "America/Havana", "2026-11-01T03:59:59.999999+00:00"),
        ("2026-10-01T12:00:00-04:00", 1, "America/Havana", "2026-11-02T04:59:59.999999+00:00"),
    ],
)
def test_a_day_ends_once_even_where_clocks_change_at_midnight(
    received: str, months: int, zone: str, instant: str
) -> None:
    own = rules(zone, working_days=False)
    found = due(at(received), months, own)
    assert found == at(instant)
    assert own.day(found) < own.day(found + timedelta(microseconds=1))


def test_every_day_of_every_zone_ends_where_the_next_begins() -> None:
    for zone in ("America/Santiago", "America/Havana", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe"):
        own = rules(zone, working_days=False)
        for number in range(400):
            received = datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)
            found = due(received, 1, own)
            following = own.day(found + timedelta(microseconds=1))
            assert following - own.day(found) == timedelta(days=1), (zone, received)


def test_an_extension_makes_one_longer_period_from_the_receipt() -> None:
    received = at("2026-01-31T10:00:00+00:00")
    assert due(received, 1, rules()) == at("2026-03-02T23:59:59.999999+00:00")  # 28 February: a Saturday
    assert extended(received, 1, 2, rules()) == at("2026-04-30T23:59:59.999999+00:00")
    assert extended(at("2023-11-30T10:00:00+00:00"), 1, 2, rules()) == at("2024-02-29T23:59:59.999999+00:00")


def test_no_month_of_a_member_state_has_fewer_than_two_working_days() -> None:
    """Why Art. 3(5) needs no rule of its own."""
    for country in MEMBERS:
        own = Rules(ZoneInfo("UTC"), holidays.country_holidays(country))
        worked = [own.works(date(2020, 1, 1) + timedelta(days=number)) for number in range(10 * 365)]
        assert min(sum(worked[start : start + 28]) for start in range(len(worked) - 28)) >= 2


@pytest.mark.parametrize("received", ["9999-12-15T00:00:00+00:00", "9999-11-30T23:59:59+00:00"])
def test_what_lies_beyond_the_calendar_is_one_line(received: str) -> None:
    with pytest.raises(ExpungeError, match="there is no calendar; correct received_at"):
        due(at(received), 1, rules("Europe/Berlin"))


def test_a_time_without_a_zone_is_a_defect() -> None:
    with pytest.raises(ValueError, match="has no zone"):
        due(datetime(2026, 5, 1, 12), 1, rules())


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("timezone", "Berlin", "'Berlin' is no time zone of IANA's; write one as Europe/Berlin or UTC"),
        ("timezone", "Europe", "is no time zone"),
        ("timezone", "../UTC", "is no time zone"),
        ("timezone", "right/UTC", "is no time zone"),
        ("timezone", "", "is no time zone"),
        ("timezone", "+02:00", "is no time zone"),
        ("holidays", "Germany", "the public holidays of 'Germany' are not known; write a country as DE"),
        ("holidays", "DE-XX", "the public holidays of 'DE-XX' are not known; known in DE: BB, BE, BW"),
        ("holidays", "", "are not known"),
        ("working_days", "yes", "working_days"),
    ],
)
def test_settings_that_mean_nothing_are_refused(key: str, value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Settings.model_validate({key: value})
