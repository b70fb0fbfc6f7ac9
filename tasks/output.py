"""What a command prints: tables, JSON, and errors as one line or as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from enum import IntEnum
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks.core.errors import ExpungeError


class Exit(IntEnum):
    """Exit statuses, beside 0."""

    DEFECT = 1
    BAD_INPUT = 2
    ATTENTION = 3
    NOT_VERIFIED = 4
    SYSTEM = 74


_TIME = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
"""A time as the ledger stamps it."""

_json = {"wanted": False}


def want_json(wanted: bool) -> bool:
    """Note that this command prints JSON, also if it fails."""
    _json["wanted"] = wanted
    return wanted


@contextmanager
def errors(*but: type[ExpungeError]) -> Iterator[None]:
    """Turn errors that a user can mend into one line and an exit status, all ``but`` some kinds."""
    try:
        yield
    except but:
        raise
    except ExpungeError as error:
        fail(str(error), Exit.BAD_INPUT)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{error.strerror or error}{where}", Exit.SYSTEM)


def fail(message: str, status: Exit) -> NoReturn:
    """Say what is wrong on standard error, with ``--json`` also on standard output, and exit."""
    line = " ".join(part.strip() for part in message.splitlines())
    if _json["wanted"]:
        print_json({"error": line, "exit": int(status)})
    print(f"expunge: {line}", file=sys.stderr)
    raise typer.Exit(status)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(text.encode("utf-8", "replace").decode())


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], none: str, zone: tzinfo = UTC
) -> None:
    """Print a table; ``none`` in its place if there are no rows.

    Cells are shown as they are written, but for times, which are those of ``zone``.
    """
    if not rows:
        if none:
            print(none)
        return
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_at", "").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column], zone)) for column in columns))
    console.print(table)


def _cell(value: object, zone: tzinfo) -> str:
    text = "" if value is None else str(value)
    if not _TIME.fullmatch(text):
        return text
    return f"{datetime.fromisoformat(text).astimezone(zone):%Y-%m-%d %H:%M}"
