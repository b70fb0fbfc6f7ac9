from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.requests.parsing import LARGEST, parse, parse_object
from tasks.requests.schema import SubmissionError
from tests.requests.conftest import submission
from tests.requests.reading import HEADER, problems, table


def test_json_and_csv_lead_to_the_same_submission() -> None:
    samples = {"id": ["a", "b c"], "path": ["d.png"], "index": [0, 12], "class": ["cat"]}
    as_json = parse(submission(samples=samples, ground="objection"), "request.JSON")
    as_csv = parse(table("id,a", "id,b c", "path,d.png", "index,0", "index,12", "class,cat"), "request.csv")
    assert as_json.submission == as_csv.submission
    assert as_json.named == as_csv.named
    assert as_json.submission.received_at == datetime(2026, 5, 1, 9, 30, tzinfo=UTC)
    assert [as_csv.line_of(named) for named in as_csv.named] == [2, 3, 4, 5, 6, 7]


def test_a_byte_order_mark_is_no_part_of_the_header() -> None:
    assert parse(b"\xef\xbb\xbf" + table("id,a"), "a.csv").named[0].value == "a"
    assert parse(b"\xef\xbb\xbf" + submission(), "a.json").named[0].value == "train/3.png"


def test_quoted_cells_and_windows_line_ends_are_csv() -> None:
    content = table('id,"a,""b"""', "id, c ").replace(b"\n", b"\r\n")
    assert [named.value for named in parse(content, "a.csv").named] == ['a,"b"', " c "]


def test_columns_may_stand_in_any_order() -> None:
    content = b"kind,value,due_at,ground,received_at,requester\nid,a,,objection,2026-05-01T09:30Z,x\n"
    assert parse(content, "a.csv").submission.due_at is None


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (-1, "must be a row number"), (True, "must be a row number"), ("12", "must be a row number"),
        (1.0, "must be a row number"), (None, "must be a row number"), (10**9, "below 1000000000"),
        ("1_000", "must be a row number"), ([], "must be a row number"),
    ],
)  # fmt: skip
def test_what_is_no_row_number_in_json(index: Any, reason: str) -> None:
    (problem,) = problems(submission(samples={"index": [3, index]}))
    assert problem.where == "samples.index[1]"
    assert reason in problem.what
    assert problem.value == repr(index)


@pytest.mark.parametrize(
    "index", ["-1", "true", "1_000", "٣", " 12 ", "12.0", "1e3", "", "0x1", "007", "+1", "1" * 400, "²", "１"]
)
def test_what_is_no_row_number_in_csv(index: str) -> None:
    (problem,) = problems(table("index,3", f"index,{index}"), "a.csv")
    assert (problem.line, problem.where) == (3, "index")
    assert "must be a row number" in problem.what


def test_every_problem_is_reported_with_its_line() -> None:
    content = b"""{
  "requester": "Jane Doe",
  "received_at": "2026-05-01T09:30:00Z",
  "ground": "objection",
  "priority": 1,
  "samples": {
    "id": [
      "a",
      7,
      "a"
    ]
  }
}"""
    assert [(problem.line, problem.where, problem.value) for problem in problems(content)] == [
        (2, "requester", "'Jane Doe'"),
        (9, "samples.id[1]", "7"),
        (5, "file", "'priority'"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"{} {}", "no JSON"),
        (b"{'a': 1}", "no JSON"),
        (b"[]", "it must hold one object"),
        (b"null", "it must hold one object"),
        (b'"a"', "it must hold one object"),
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b'{"samples": {"id": ["a"], "id": ["b"]}}', "a key stands twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "more than 18 digits"),
        (b"[" * 100_000, "nested too deeply|no JSON"),
        (b"\xff\xfe{\x00}\x00", "no UTF-8 text: byte 0"),
        (b'{"a": "\xc3"}', "no UTF-8 text"),
    ],
)
def test_what_is_no_json_is_refused(content: bytes, reason: str) -> None:
    (problem,) = problems(content)
    assert problem.where == "file"
    assert re.search(reason, problem.what)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 1, "column requester is missing"),
        (HEADER.encode(), 1, "no rows"),
        (table("id,a", header=HEADER.replace("kind", "kinds")), 1, "column kind is missing"),
        (table("id,a,x", header=HEADER.replace("value", "value,name")), 1, "unknown column"),
        (table("id,a,b", header=HEADER.replace("value", "value,value")), 1, "stands twice"),
        (table("id,a", header=HEADER.replace(",", ";")), 1, "column requester is missing"),
        (table("id,a", "id"), 3, "4 cells; the header has 5"),
        (table("id,a", "id,b,c"), 3, "6 cells"),
        (table("id,a", "name,b"), 3, "must be one of id, path, index, class"),
        (table("id,a", "ID,b"), 3, "must be one of"),
        (table("id,a", "id,"), 3, "must not be empty"),
        (table("id,a", "id,a"), 3, "named before in line 2"),
        (table('id,"a'), 2, "no CSV"),
        (table('id,"a"b'), 2, "no CSV"),
        (table("id,a\0"), 2, "no CSV|control characters"),
        (table("id,a") + b"other,2026-05-01T09:30:00Z,objection,id,b\n", 3, "differs from the first row's"),
        (table("id,a").replace(b"objection", b"why"), 2, "must be one of no-longer-necessary"),
        (table("id,a").replace(b"crm:4711", b"Jane Doe"), 2, "never a name"),
        (b"\xff" + table("id,a"), None, "no UTF-8 text: byte 0"),
    ],
)
def test_a_bad_table_is_refused_with_the_line(content: bytes, line: int | None, reason: str) -> None:
    found = problems(content, "a.csv")
    assert re.search(reason, found[0].what)
    assert found[0].line == line


def test_every_bad_row_is_reported_in_order() -> None:
    found = problems(table("id,a", "index,x", "id,", "name,b", "index,-3"), "a.csv")
    assert [problem.line for problem in found] == [3, 4, 5, 6]


@pytest.mark.parametrize("name", ["request", "request.txt", "request.json.gz", "json", "request.xlsx"])
def test_only_json_and_csv_are_read(name: str) -> None:
    (problem,) = problems(submission(), name)
    assert problem.what == "its name must end in .json or .csv"


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    (problem,) = problems(b"[" * (LARGEST + 1))
    assert "larger than 64 MiB" in problem.what


def test_a_message_lists_twenty_problems_and_counts_the_rest() -> None:
    with pytest.raises(SubmissionError) as caught:
        parse(table(*(f"index,x{row}" for row in range(50))), "a.csv")
    assert len(caught.value.problems) == 50
    assert str(caught.value).endswith("and 30 more")


def test_an_object_needs_no_file() -> None:
    value = json.loads(submission())
    assert parse_object(value).submission == parse(submission(), "a.json").submission
    with pytest.raises(SubmissionError, match=r"^ground 'x': must be one of"):
        parse_object(value | {"ground": "x"})


@pytest.mark.parametrize("name", ["a.json", "a.csv"])
def test_a_hundred_thousand_samples_are_read_in_two_seconds(name: str) -> None:
    names = [f"train/class/{row:08d}.png" for row in range(100_000)]
    content = submission(samples={"id": names}) if name == "a.json" else table(*(f"id,{n}" for n in names))
    start = time.process_time()
    parsed = parse(content, name)
    assert time.process_time() - start < 2
    assert len(parsed.named) == 100_000
    assert parsed.line_of(parsed.named[-1]) == (1 if name == "a.json" else 100_001)
