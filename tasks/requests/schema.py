"""What a request looks like: the model that every submission must fit, its JSON Schema, its problems."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from tasks.core.errors import ExpungeError

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

Kind = Literal["id", "path", "index", "class", "subject"]
"""How samples are named: one by its id, the file it came from, its row in the source's training part; all of
a class, or of a person."""

NearCopies = Literal["tell", "include"]
"""What becomes of samples that show the same picture as one that is asked for, or nearly the same."""

_SHAPE = (
    r"-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))"
)
_TIME = re.compile(f"([0-9]{{4}}){_SHAPE}")
_PUBLISHED = f"^2[0-9]{{3}}{_SHAPE}$"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Unicode's categories Cc and Cs."""

_NO_SUCH_TIME = "there is no such time"


def read_time(text: str) -> datetime:
    """Return the instant that a time names, in UTC.

    Taken is what RFC 3339 takes, the space between date and time of its section 5.6 too, and also ``+0000``
    and a time without seconds. What lies below a microsecond
    is cut off. The second 60 of a leap second becomes the last microsecond before it, which is of the same
    day.

    Raises
    ------
    ValueError
        If it has no zone or another form, if its year cannot be meant, or if there is no such time.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("a time with its zone is needed, such as 2026-05-01T09:30:00Z")
    year, month, day, hour, minute = map(int, match.groups()[:5])
    second, fraction, sign, hours, minutes = match.groups()[5:]
    if not 2000 <= year <= 2999:
        raise ValueError("its year cannot be meant; one from 2000 to 2999 is right")
    leap = second == "60"
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise ValueError("there is no such zone; offsets reach from -23:59 to +23:59")
    microsecond = int((fraction or "")[:6].ljust(6, "0"))
    try:
        local = datetime(year, month, day, hour, minute, 59 if leap else int(second or 0), microsecond, UTC)
    except ValueError:
        raise ValueError(_NO_SUCH_TIME) from None
    instant = local + offset if sign == "-" else local - offset
    if not leap:
        return instant
    if (instant.hour, instant.minute) != (23, 59) or (instant + timedelta(days=1)).day != 1:
        raise ValueError(f"{_NO_SUCH_TIME}: leap seconds end a month, at 23:59:60 UTC")
    return instant.replace(microsecond=999_999)


def _time(value: Any) -> datetime:
    return read_time(value if isinstance(value, str) else "")


def _text(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("control characters are not allowed")
    return value


Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "pattern": _PUBLISHED})]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_text)]
Requester = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
Index = Annotated[int, Field(ge=0, lt=10**9)]

_UNIQUE: Any = {"uniqueItems": True}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=False)


class Samples(_Strict):
    """The samples of a request, by any of five names."""

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
        (),
        json_schema_extra=_UNIQUE,
        description="Row in the source's training part, from 0, counted through all its files.",
    )
    class_: tuple[Name, ...] = Field(
        (),
        alias="class",
        json_schema_extra=_UNIQUE,
        description="All training and validation samples of a class.",
    )
    subject: tuple[Name, ...] = Field(
        (),
        json_schema_extra=_UNIQUE,
        description="All samples of a person, test samples too, by the reference that the source has.",
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
    near_copies: NearCopies = Field(
        "tell",
        description="Other samples that show the same picture, or nearly the same: told, or taken along.",
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a request as JSON.

    Whatever it refuses is refused, too, when it is submitted. The reverse does not hold: no schema tells that
    a sample does not exist.
    """
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **Submission.model_json_schema()}


@dataclass(frozen=True, slots=True)
class Named:
    """One name of a sample: its kind, the name, and its place among the names of that kind."""

    kind: Kind
    value: str | int
    place: int


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


def shown(value: object) -> str:
    """Return a value as a message shows it: quoted, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
