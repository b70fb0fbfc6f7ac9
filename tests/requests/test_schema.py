from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tasks.requests.parsing import parse
from tasks.requests.schema import json_schema, read_time
from tests.requests.conftest import submission
from tests.requests.reading import problems

PUBLISHED = json.loads((Path(__file__).parents[2] / "docs/request.schema.json").read_text())


def test_times_of_other_zones_become_utc() -> None:
    parsed = parse(
        submission(received_at="2026-05-01T01:30+02:00", due_at="2026-05-03T00:00:00.5-01:00"), "a.json"
    )
    assert parsed.submission.received_at == datetime(2026, 4, 30, 23, 30, tzinfo=UTC)
    assert parsed.submission.due_at == datetime(2026, 5, 3, 1, 0, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        # section 5.8 of RFC 3339, its years moved to where a request may lie
        ("2025-04-12T23:20:50.52Z", "2025-04-12T23:20:50.520000"),
        ("2016-12-19T16:39:57-08:00", "2016-12-20T00:39:57.000000"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999"),
        ("2016-12-31T15:59:60-08:00", "2016-12-31T23:59:59.999999"),
        ("2037-01-01T12:00:27.87+00:20", "2037-01-01T11:40:27.870000"),
        # the rest of its grammar
        ("2026-05-01t09:30:00z", "2026-05-01T09:30:00.000000"),
        ("2026-05-01T09:30:00-00:00", "2026-05-01T09:30:00.000000"),
        ("2026-05-01T09:30:00.1234567Z", "2026-05-01T09:30:00.123456"),
        ("2026-05-01T09:30:00.999999999Z", "2026-05-01T09:30:00.999999"),
        ("2026-05-01T09:30:00." + "9" * 400 + "Z", "2026-05-01T09:30:00.999999"),
        ("2017-01-01T00:59:60.5+01:00", "2016-12-31T23:59:59.999999"),
        ("2026-05-01T09:30:00+23:59", "2026-04-30T09:31:00.000000"),
        ("2026-05-01T09:30:00-23:59", "2026-05-02T09:29:00.000000"),
        ("2000-01-01T00:00:00+23:59", "1999-12-31T00:01:00.000000"),
        ("2999-12-31T23:59:60Z", "2999-12-31T23:59:59.999999"),
        ("2026-05-01 09:30:00-07:00", "2026-05-01T16:30:00.000000"),
        # and more than it
        ("2026-05-01T09:30:00+0000", "2026-05-01T09:30:00.000000"),
        ("2026-05-01T09:30:00-0130", "2026-05-01T11:00:00.000000"),
        ("2024-02-29T09:30Z", "2024-02-29T09:30:00.000000"),
    ],
)
def test_every_time_of_rfc_3339_is_taken(text: str, instant: str) -> None:
    assert read_time(text) == datetime.fromisoformat(instant).replace(tzinfo=UTC)
    Draft202012Validator(PUBLISHED).validate(json.loads(submission(received_at=text)))


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"requester": None}, "requester", "is missing"),
    ({"requester": ""}, "requester", "opaque reference"),
    ({"requester": "Jane Doe"}, "requester", "never a name"),
    ({"requester": "jane@example.org"}, "requester", "never a name"),
    ({"requester": "a\n"}, "requester", "opaque reference"),
    ({"requester": "é"}, "requester", "opaque reference"),
    ({"requester": "a" * 65}, "requester", "opaque reference"),
    ({"requester": 4711}, "requester", "must be text"),
    ({"received_at": None}, "received_at", "is missing"),
    ({"received_at": "2026-05-01"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01T09:30:00"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-02-30T09:30:00Z"}, "received_at", "there is no such time"),
    ({"received_at": "2026-05-01T25:30:00Z"}, "received_at", "there is no such time"),
    ({"received_at": "0001-01-01T00:00:00+14:00"}, "received_at", "its year cannot be meant"),
    ({"received_at": "0226-05-01T09:30:00Z"}, "received_at", "one from 2000 to 2999 is right"),
    ({"received_at": "1999-12-31T23:59:59Z"}, "received_at", "its year cannot be meant"),
    ({"received_at": "9999-12-31T23:59:59Z"}, "received_at", "its year cannot be meant"),
    ({"due_at": "9999-12-31T23:59:59-23:59"}, "due_at", "its year cannot be meant"),
    ({"received_at": "2026-05-01T09:30:00+24:00"}, "received_at", "there is no such zone"),
    ({"received_at": "2026-05-01T09:30:00+23:60"}, "received_at", "there is no such zone"),
    ({"received_at": "2026-05-01T09:30:00+02"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01  09:30:00Z"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01_09:30:00Z"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01T09:30:00,5Z"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01T09:30:00.Z"}, "received_at", "a time with its zone"),
    ({"received_at": "2026-05-01T24:00:00Z"}, "received_at", "there is no such time"),
    ({"received_at": "2026-05-01T09:30:61Z"}, "received_at", "there is no such time"),
    ({"received_at": "2026-05-01T09:30:60Z"}, "received_at", "there is no such time: leap seconds"),
    ({"received_at": "2016-12-31T23:59:60+01:00"}, "received_at", "there is no such time: leap seconds"),
    ({"received_at": "２０26-05-01T09:30:00Z"}, "received_at", "a time with its zone"),
    ({"received_at": 1777627800}, "received_at", "a time with its zone"),
    ({"due_at": ""}, "due_at", "a time with its zone"),
    ({"due_at": "2026-05-01T09:30:00Z"}, "due_at", "must be later than received_at"),
    ({"ground": "because"}, "ground", "must be one of no-longer-necessary, consent-withdrawn"),
    ({"ground": ["objection"]}, "ground", "must be one of"),
    ({"samples": None}, "samples", "is missing"),
    ({"samples": []}, "samples", "must be an object"),
    ({"samples": {}}, "samples", "names no sample"),
    ({"samples": {"id": []}}, "samples", "names no sample"),
    ({"samples": {"id": "a"}}, "samples.id", "must be a list"),
    ({"samples": {"id": {"a": 1}}}, "samples.id", "must be a list"),
    ({"samples": {"id": [""]}}, "samples.id[0]", "must not be empty"),
    ({"samples": {"id": [3]}}, "samples.id[0]", "must be text"),
    ({"samples": {"id": ["a\0b"]}}, "samples.id[0]", "control characters"),
    ({"samples": {"id": ["a\ud800"]}}, "samples.id[0]", "control characters|must be text|surrogate"),
    ({"samples": {"id": ["a" * 1025]}}, "samples.id[0]", "at most 1024 characters"),
    ({"samples": {"id": ["a", "b", "a"]}}, "id", "named before"),
    ({"samples": {"index": [1, 1]}}, "index", "named before"),
]  # fmt: skip
NOT_IN_A_SCHEMA = "there is no such|must be later than|control characters"


@pytest.mark.parametrize(("changes", "where", "reason"), BAD)
def test_a_bad_value_is_named_with_its_key(changes: dict[str, Any], where: str, reason: str) -> None:
    (problem,) = problems(submission(**changes))
    assert problem.where == where
    assert re.search(reason, problem.what)


@pytest.mark.parametrize(("changes", "reason"), [(changes, reason) for changes, _, reason in BAD])
def test_the_published_schema_refuses_what_a_schema_can_tell(changes: dict[str, Any], reason: str) -> None:
    line_end = changes == {"requester": "a\n"}  # Python's $ lets it pass, that of JSON Schema does not
    expected = line_end or bool(re.match(NOT_IN_A_SCHEMA, reason))
    assert Draft202012Validator(PUBLISHED).is_valid(json.loads(submission(**changes))) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"received_at": "2026-05-01T01:30+02:00", "due_at": "2026-05-03T00:00:00.5-01:00"},
        {"samples": {"id": ["a", "b c"], "path": ["d.png"], "index": [0, 12], "class": ["cat"]}},
        {"samples": {"id": [], "index": [10**9 - 1]}},
        {"requester": "a" * 64},
    ],
)
def test_the_published_schema_takes_what_is_right(changes: dict[str, Any]) -> None:
    content = submission(**changes)
    assert parse(content, "a.json")
    Draft202012Validator(PUBLISHED).validate(json.loads(content))


def test_the_published_schema_is_that_of_the_program() -> None:
    Draft202012Validator.check_schema(PUBLISHED)
    assert json_schema() == PUBLISHED, "expunge submit --schema > docs/request.schema.json"


def test_what_the_ledger_keeps_holds_no_value() -> None:
    content = submission(
        **{"requester": "Jane Doe", "Jane Roe": "x", "samples": {"id": [""], "Jane Poe": ["y"]}}
    )
    found = problems(content)
    assert len(found) == 4
    assert "Jane" in " ".join(map(str, found))
    assert "Jane" not in json.dumps([problem.as_record() for problem in found])
