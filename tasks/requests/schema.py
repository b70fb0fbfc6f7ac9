"""What a request looks like, as JSON or CSV, and how one is read: whole, strictly, or not at all.

JSON is one object; CSV is one row a sample, with the request's own columns equal in all rows. Both lead
to the same :class:`Submission`. Every problem is reported with its line and value; the value is shown to
whoever submits and never recorded.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NoReturn, Protocol, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.core.errors import ExpungeError

LARGEST = 64 * 2**20
"""Bytes of a submission."""

LONGEST = 1024
"""Characters of a sample id or a path."""

SHOWN = 20
"""How many problems a message lists."""

Ground = Literal[
    "no-longer-necessary",
    "consent-withdrawn",
    "objection",
    "unlawful-processing",
    "legal-obligation",
    "child-consent",
    "contract",
    "data-quality",
    "other",
]
"""Why: the grounds of GDPR Art. 17(1)(a) to (f), in its order, and three that other duties bring."""

Kind = Literal["id", "path", "index", "class"]
"""How a sample is named: its id, the file it came from, its row in the source's training part, its class."""

COLUMNS = ("requester", "received_at", "ground", "kind", "value")
OPTIONAL = ("due_at",)

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def _time(value: Any) -> Any:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("a time with its zone is needed, such as 2026-05-01T09:30:00Z")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None


def _text(value: str) -> str:
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("control characters are not allowed")
    return value


Time = Annotated[
    datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "pattern": f"^{_TIME.pattern}$"})
]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_text)]
Requester = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
Index = Annotated[int, Field(ge=0, lt=10**9)]

_UNIQUE: Any = {"uniqueItems": True}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class Samples(_Strict):
    """The samples of a request, by any of four names."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"properties": {kind: {"minItems": 1}}, "required": [kind]} for kind in get_args(Kind)]
        }
    )

    id: tuple[Name, ...] = Field(
        (), json_schema_extra=_UNIQUE, description="As in data/split/samples.csv, column sample_id."
    )
    path: tuple[Name, ...] = Field(
        (), json_schema_extra=_UNIQUE, description="As in data/split/samples.csv, column source."
    )
    index: tuple[Index, ...] = Field(
        (), json_schema_extra=_UNIQUE, description="Row in the source's training part, from 0."
    )
    class_: tuple[Name, ...] = Field(
        (),
        alias="class",
        json_schema_extra=_UNIQUE,
        description="All training and validation samples of a class.",
    )


class Submission(_Strict):
    """A request as it is submitted."""

    requester: Requester = Field(
        description="Opaque reference into the system that knows the person. Never a name or an address."
    )
    received_at: Time = Field(
        description="When the request reached the organisation; the due date counts from it."
    )
    due_at: Time | None = Field(None, description="When it must be done, if earlier than the rule says.")
    ground: Ground = Field(description="Why: GDPR Art. 17(1)(a) to (f) in order, and three more.")
    samples: Samples = Field(description="What is to be forgotten.")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a request as JSON.

    Whatever it refuses is refused, too, when it is submitted. The reverse does not hold: no schema tells that
    a sample does not exist.
    """
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **Submission.model_json_schema()}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a submission.

    Attributes
    ----------
    line
        In the file, from 1; ``None`` where a submission has no lines.
    where
        Key or column.
    what
        What is wrong and what would be right, without the value.
    value
        As submitted, shortened; shown, never recorded.
    """

    line: int | None
    where: str
    what: str
    value: str = ""

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line is not None else ""
        return f"{line}{self.where}{f' {self.value}' if self.value else ''}: {self.what}"

    def as_record(self) -> dict[str, Any]:
        """Return what the ledger keeps."""
        return {"line": self.line, "where": self.where, "what": self.what}


class SubmissionError(ExpungeError):
    """A submission that is rejected, with every problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(map(str, self.problems[:SHOWN]))
        more = len(self.problems) - SHOWN
        super().__init__(shown + (f"; and {more} more" if more > 0 else ""))


@dataclass(frozen=True, slots=True)
class Named:
    """One name of a sample: its kind, the name, and its place among the names of that kind."""

    kind: Kind
    value: str | int
    place: int


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


def shown(value: object) -> str:
    """Return a value as a message shows it: quoted, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
        header = next(reader, [])
        _check_header(header)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise SubmissionError([Problem(reader.line_num, "file", f"no CSV: {error}")]) from None
    problems = [
        Problem(line, "row", f"{len(row)} cells; the header has {len(header)}")
        for line, row in rows
        if len(row) != len(header)
    ]
    if problems or not rows:
        raise SubmissionError(problems or [Problem(1, "file", "no rows; one a sample is needed")])
    cells = [(line, dict(zip(header, row, strict=True))) for line, row in rows]
    own = {column: cells[0][1][column] for column in header if column not in {"kind", "value"}}
    samples: dict[str, list[str | int]] = {kind: [] for kind in get_args(Kind)}
    named: list[Named] = []
    lines = CsvLines(first=cells[0][0])
    for line, cell in cells:
        problems += _disagreements(line, cell, own)
        kind, value = cell["kind"], cell["value"]
        if kind not in samples:
            known = ", ".join(samples)
            problems.append(Problem(line, "kind", f"must be one of {known}", shown(kind)))
        elif kind == "index" and not _INDEX.fullmatch(value):
            problems.append(Problem(line, "index", _WORDS["int_type"], shown(value)))
        else:
            entry = Named(cast("Kind", kind), int(value) if kind == "index" else value, len(samples[kind]))
            lines.of_sample[kind, entry.place] = line
            samples[kind].append(entry.value)
            named.append(entry)
    own = {column: value for column, value in own.items() if value or column not in OPTIONAL}
    try:
        submission = Submission.model_validate(_with_tuples({**own, "samples": samples}))
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


def _disagreements(line: int, cell: Mapping[str, str], own: Mapping[str, str]) -> Iterator[Problem]:
    for column, value in own.items():
        if cell[column] != value:
            what = "differs from the first row's; a file is one request"
            yield Problem(line, column, what, shown(cell[column]))


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
        problems.append(Problem(None, "samples", "names no sample; use id, path, index or class"))
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
    for entry in error.errors():
        path = tuple(entry["loc"])
        what = _WORDS.get(entry["type"], entry["msg"].removeprefix("Value error, "))
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


class Lines(Protocol):
    """Finds lines of a submission's file, counted from 1; ``None`` where there are none."""

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`Submission`."""


@dataclass(slots=True)
class CsvLines:
    """Lines of a table: the first row's for what all rows share."""

    first: int
    of_sample: dict[tuple[str, int], int] = field(default_factory=dict)

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""
        return self.of_sample[named.kind, named.place]

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`Submission`."""
        return self.of_sample[str(path[1]), int(path[2])] if len(path) == 3 else self.first


class JsonLines:
    """Lines of a JSON text, which is parsed once more, with places, at the first question."""

    def __init__(self, text: str | None) -> None:
        self._text = text
        self._root: Node | None = None

    def of(self, named: Named) -> int | None:
        """Line of the name of a sample."""
        return self.at(("samples", named.kind, named.place))

    def at(self, path: tuple[int | str, ...]) -> int | None:
        """Line of a value of :class:`Submission`, or of the nearest that there is."""
        if self._text is not None and self._root is None:
            try:
                self._root = YAML(typ="safe", pure=True).compose(io.StringIO(self._text))
            except (YAMLError, ValueError, RecursionError):  # JSON that is no YAML, such as with tabs
                self._text = None
        node = self._root
        for part in path:
            below = _child(node, part)
            if below is None:
                break
            node = below
        return node.start_mark.line + 1 if node is not None else None


def _child(node: Node | None, part: object) -> Node | None:
    if isinstance(node, MappingNode):
        return next(
            (value for key, value in node.value if isinstance(key, ScalarNode) and key.value == part), None
        )
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        child: Node = node.value[part]
        return child
    return None


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
