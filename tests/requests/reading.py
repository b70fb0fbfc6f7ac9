"""What tests of reading share: tables, and the problems of what is refused."""

from __future__ import annotations

import pytest

from tasks.requests.parsing import parse
from tasks.requests.schema import Problem, SubmissionError

HEADER = "requester,received_at,ground,kind,value\n"
ROW = "crm:4711,2026-05-01T09:30:00Z,objection,"


def problems(content: bytes, name: str = "a.json") -> tuple[Problem, ...]:
    with pytest.raises(SubmissionError) as caught:
        parse(content, name)
    assert "\n" not in str(caught.value)
    return caught.value.problems


def table(*rows: str, header: str = HEADER) -> bytes:
    return (header + "".join(f"{ROW}{row}\n" for row in rows)).encode()
