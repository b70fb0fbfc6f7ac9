"""How a request is read from JSON or CSV: whole, strictly, or not at all.

JSON is one object; CSV is one row a sample, with the request's own columns equal in all rows. Both lead
to the same :class:`~tasks.requests.schema.Submission`. Every problem is reported with its line and value;
the value is shown to whoever submits and never recorded.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast, get_args

from pydantic import ValidationError

from tasks.requests.lines import CsvLines, JsonLines, Lines
from tasks.requests.schema import (
    LONGEST,
    Ground,
    Kind,
    Named,
    NearCopies,
    Problem,
    Submission,
    SubmissionError,
    shown,
)

LARGEST = 64 * 2**20
"""Bytes of a submission."""

COLUMNS = ("requester", "received_at", "ground", "kind", "value")
OPTIONAL = ("due_at", "near_copies")

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid submission, its names in the file's order, and where the file has them."""

    submission: Submission
    named: tuple[Named, ...]
    lines: Lines

    def problem(self, named: Named, what: str) -> Problem:
        """Return what is wrong with one name."""
        return Problem(self.lines.of(named), named.kind, what, shown(named.value))

    def line_of(self, named: Named) -> int | None:
        """Return the line that it stands on, if the submission has lines."""
        return self.lines.of(named)


def parse(content: bytes, name: str) -> Parsed:
    """Read a submission from the bytes of a file called ``name``, ``*.json`` or ``*.csv``.

    Raises
    ------
    SubmissionError
        If anything is wrong with it.
    """
    if len(content) > LARGEST:
        raise _refused("file", f"larger than {LARGEST // 2**20} MiB; split it into several requests")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused("file", f"no UTF-8 text: byte {error.start}") from None
    if name.lower().endswith(".json"):
        return parse_json(text)
    if name.lower().endswith(".csv"):
        return parse_csv(text)
    raise _refused("file", "its name must end in .json or .csv")


def parse_json(text: str) -> Parsed:
    """Read a JSON object; see :func:`parse`."""
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_unique, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise SubmissionError([Problem(error.lineno, "file", f"no JSON: {error.msg}")]) from None
    except (ValueError, RecursionError) as error:
        raise _refused("file", str(error) if isinstance(error, ValueError) else "nested too deeply") from None
    return parse_object(value, text)


def parse_object(value: Any, text: str | None = None) -> Parsed:
    """Read a submission that is an object already; ``text`` is its JSON, to find lines in."""
    if not isinstance(value, Mapping):
        raise _refused("file", "it must hold one object, the request")
    lines = JsonLines(text)
    try:
        submission = Submission.model_validate(_with_tuples(value))
    except ValidationError as error:
        raise SubmissionError(_problems(error, lines)) from None
    named = [
        Named(kind, value, place)
        for kind in get_args(Kind)
        for place, value in enumerate(getattr(submission.samples, "class_" if kind == "class" else kind))
    ]
    return _checked(Parsed(submission, tuple(named), lines))


def parse_csv(text: str) -> Parsed:
    """Read a table, one row a sample; see :func:`parse`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return _table(next(reader, []), ((reader.line_num, row) for row in reader if row))
    except csv.Error as error:
        raise SubmissionError([Problem(reader.line_num, "file", f"no CSV: {error}")]) from None


def _table(header: list[str], rows: Iterable[tuple[int, list[str]]]) -> Parsed:
    _check_header(header)
    kind_at, value_at = header.index("kind"), header.index("value")
    own = [place for place, column in enumerate(header) if column not in {"kind", "value"}]
    samples: dict[str, list[str | int]] = {kind: [] for kind in get_args(Kind)}
    named: list[Named] = []
    lines: CsvLines | None = None
    first: list[str] = []
    problems: list[Problem] = []
    ragged: list[Problem] = []
    for line, row in rows:
        if len(row) != len(header):
            ragged.append(Problem(line, "row", f"{len(row)} cells; the header has {len(header)}"))
            continue
        if lines is None:
            lines, first = CsvLines(line), row
        problems += [
            Problem(
                line, header[place], "differs from the first row's; a file is one request", shown(row[place])
            )
            for place in own
            if row[place] != first[place]
        ]
        kind, value = row[kind_at], row[value_at]
        if kind not in samples:
            problems.append(Problem(line, "kind", f"must be one of {', '.join(samples)}", shown(kind)))
        elif kind == "index" and not _INDEX.fullmatch(value):
            problems.append(Problem(line, "index", _WORDS["int_type"], shown(value)))
        else:
            entry = Named(cast("Kind", kind), int(value) if kind == "index" else value, len(samples[kind]))
            lines.add(kind, line)
            samples[kind].append(entry.value)
            named.append(entry)
    if ragged or lines is None:
        raise SubmissionError(ragged or [Problem(1, "file", "no rows; one a sample is needed")])
    shared = {header[place]: first[place] for place in own if first[place] or header[place] not in OPTIONAL}
    try:
        submission = Submission.model_validate(_with_tuples({**shared, "samples": samples}))
    except ValidationError as error:
        problems += _problems(error, lines)
    if problems:
        raise SubmissionError(sorted(problems, key=lambda problem: problem.line or 0))
    return _checked(Parsed(submission, tuple(named), lines))


def _check_header(header: list[str]) -> None:
    missing = [column for column in COLUMNS if column not in header]
    unknown = [column for column in header if column not in COLUMNS + OPTIONAL]
    twice = sorted({column for column in header if header.count(column) > 1})
    known = f"columns are {', '.join(COLUMNS)}, and if wanted {', '.join(OPTIONAL)}"
    problems = [
        *(Problem(1, "header", f"column {column} is missing; {known}") for column in missing),
        *(Problem(1, "header", f"unknown column; {known}", shown(column)) for column in unknown),
        *(Problem(1, "header", "the column stands twice", shown(column)) for column in twice),
    ]
    if problems:
        raise SubmissionError(problems)


def _checked(parsed: Parsed) -> Parsed:
    """Check what no single value shows: that something is named, nothing twice, and the due date's order."""
    first: dict[tuple[str, str | int], Named] = {}
    problems = []
    for entry in parsed.named:
        earlier = first.setdefault((entry.kind, entry.value), entry)
        if earlier is not entry:
            line = parsed.line_of(earlier)
            problems.append(parsed.problem(entry, f"named before{f' in line {line}' if line else ''}"))
    if not parsed.named:
        problems.append(Problem(None, "samples", f"names no sample; use {', '.join(get_args(Kind))}"))
    submission = parsed.submission
    if submission.due_at is not None and submission.due_at <= submission.received_at:
        problems.append(Problem(None, "due_at", "must be later than received_at"))
    if problems:
        raise SubmissionError(problems)
    return parsed


def _with_tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    samples = value.get("samples")
    if not isinstance(samples, Mapping):
        return dict(value)
    lists = {kind: tuple(names) if isinstance(names, list) else names for kind, names in samples.items()}
    return {**value, "samples": lists}


_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is an unknown key",
    "string_type": "must be text",
    "string_unicode": "must be text without lone surrogates",
    "int_type": "must be a row number such as 0 or 4711",
    "greater_than_equal": "must be a row number such as 0 or 4711",
    "less_than": "must be a row number below 1000000000",
    "tuple_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_too_long": f"must be at most {LONGEST} characters long",
    "string_pattern_mismatch": (
        "must be an opaque reference of letters, digits and . _ : - (at most 64), never a name"
    ),
    "literal_error": f"must be one of {', '.join(get_args(Ground))}",
}
"""What pydantic's types of error mean to who writes a request."""


def _problems(error: ValidationError, lines: Lines) -> list[Problem]:
    found = []
    for entry in error.errors(include_url=False, include_context=False):
        path = tuple(entry["loc"])
        what = _WORDS.get(entry["type"], entry["msg"].removeprefix("Value error, "))
        if path == ("near_copies",):
            what = f"must be one of {', '.join(get_args(NearCopies))}"
        line = lines.at(path)
        if entry["type"] == "extra_forbidden":  # the key is the submitter's text, so it is a value
            found.append(Problem(line, _dotted(path[:-1]), what, shown(path[-1])))
        else:
            found.append(
                Problem(
                    line, _dotted(path), what, "" if entry["type"] == "missing" else shown(entry["input"])
                )
            )
    return found


def _dotted(path: Iterable[object]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "file"


def _refused(where: str, what: str) -> SubmissionError:
    return SubmissionError([Problem(None, where, what)])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError("a number of more than 18 digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value
