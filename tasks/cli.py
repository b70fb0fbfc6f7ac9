"""``expunge``: requests to forget, from the command line."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from tasks.errors import ExpungeError
from tasks.params import load
from tasks.requests import inbox as inboxes
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Receipt, Request
from tasks.requests.ledger import Head, check_chain
from tasks.requests.states import Status


class Exit(IntEnum):
    """Exit statuses, beside 0."""

    DEFECT = 1
    BAD_INPUT = 2
    LATE = 3
    NOT_VERIFIED = 4
    SYSTEM = 74


app = typer.Typer(
    help="Requests to forget training data: submit, decide, follow, verify. Run it in the repository's root.",
    epilog="Exit status: 0 done; 2 bad input or not allowed; 3 something is overdue (status); "
    "4 verification failed (verify); 74 the operating system refused to read or write; 1 a defect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RequestId = Annotated[
    str, typer.Argument(help="The request's id, such as 20260501-9f86d081.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is recorded.", show_default=False)]
By = Annotated[
    str,
    typer.Option(help="Who decides; it is recorded. [default: the user's login name]", show_default=False),
]


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors that a user can mend into one line and an exit status."""
    try:
        yield
    except ExpungeError as error:
        _fail(str(error), Exit.BAD_INPUT)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror or error}{where}", Exit.SYSTEM)


def _fail(message: str, status: Exit) -> NoReturn:
    print(f"expunge: {message}", file=sys.stderr)
    raise typer.Exit(status)


def desk() -> Desk:
    """Open the desk that ``params.yaml`` describes; EXPUNGE_LEDGER and EXPUNGE_KEYS take precedence."""
    return Desk.open(load().requests, os.environ, Path.cwd())


@app.command()
def submit(
    files: Annotated[
        list[Path], typer.Argument(help="Requests, *.json or *.csv; one a file.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Submit requests. Each file is taken or rejected as a whole; exit status 2 if one was rejected."""
    with _errors():
        opened, catalogue = desk(), Catalogue.load()
        receipts = [
            (str(path), opened.submit(path.read_bytes(), path.name, catalogue, channel="cli"))
            for path in files
        ]
    _print_receipts(receipts, opened, as_json)


@app.command()
def inbox(as_json: AsJson = False) -> None:
    """Submit the files in data/requests/inbox. Exit status 2 if one was rejected."""
    with _errors():
        opened = desk()
        receipts = list(inboxes.take(opened, Catalogue.load()))
    _print_receipts(receipts, opened, as_json)


@app.command("list")
def list_requests(
    everything: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """List requests, the most urgent first."""
    with _errors():
        opened = desk()
        found = [request for request in opened.requests() if request.open or everything]
    found.sort(key=lambda request: (not request.open, request.due_at or "", request.id))
    rows = [_summary(opened, request) for request in found]
    if as_json:
        _print_json(rows)
        return
    _print_rows(
        rows, ("request", "status", "samples", "received_at", "due_at", "urgency", "next"), "no requests"
    )


@app.command()
def show(request: RequestId, as_json: AsJson = False) -> None:
    """Show one request: where it stands and every event that led there."""
    with _errors():
        opened = desk()
        found = opened.show(request)
    _print_request(opened, found, as_json)


@app.command()
def approve(request: RequestId, by: By = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Approve a request, where requests.approval asks for it."""
    _decide("approved", request, by, reason, as_json)


@app.command()
def refuse(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Refuse a request, with the reason."""
    _decide("refused", request, by, reason, as_json)


@app.command()
def hold(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Put a request on legal hold: nothing that cannot be undone happens until it is released."""
    _decide("held", request, by, reason, as_json)


@app.command()
def release(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """End a legal hold."""
    _decide("released", request, by, reason, as_json)


@app.command()
def extend(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Move the due date by requests.extension_months; possible once, with the reason."""
    _decide("extended", request, by, reason, as_json)


@app.command()
def retry(request: RequestId, reason: Reason = "", by: By = "", as_json: AsJson = False) -> None:
    """Try a request that failed once more, from where it failed."""
    _decide("retried", request, by, reason, as_json)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say what is due, at risk and overdue; exit status 3 if anything is overdue."""
    with _errors():
        opened = desk()
        found = [request for request in opened.requests() if request.open]
    rows = [_summary(opened, request) for request in sorted(found, key=lambda request: request.due_at or "")]
    counts = {name: sum(row["urgency"] == name for row in rows) for name in ("overdue", "at risk", "on time")}
    if as_json:
        _print_json({"at": opened.clock().isoformat(), "counts": counts, "open": rows})
    else:
        print(f"{len(rows)} open: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        urgent = [
            row for row in rows if row["urgency"] in {"overdue", "at risk"} or row["status"] == "failed"
        ]
        _print_rows(urgent, ("request", "status", "due_at", "urgency", "next"), "")
    if counts["overdue"]:
        raise typer.Exit(Exit.LATE)


@app.command()
def verify(
    anchors: Annotated[
        list[str] | None,
        typer.Option("--anchor", help="A head that was written down: <number>:<hash>. Can be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the ledger: every event in place, unchanged, and on every anchor; exit status 4 if not."""
    with _errors():
        known = [Head.parse(anchor) for anchor in anchors or []]
        events = desk().ledger.events()
    try:
        head = check_chain(events, known)
    except ExpungeError as error:
        _fail(str(error), Exit.NOT_VERIFIED)
    if as_json:
        _print_json({"events": head.seq, "head": str(head), "anchors": len(known)})
    else:
        print(f"{head.seq} events, unbroken; head {head}")


def _decide(kind: str, request: str, by: str, reason: str, as_json: bool) -> None:
    with _errors():
        opened = desk()
        decided = opened.decide(kind, request, by=by or getpass.getuser(), reason=reason)
    _print_request(opened, decided, as_json)


def _summary(opened: Desk, request: Request) -> dict[str, Any]:
    return request.summary(opened.clock(), timedelta(days=opened.settings.at_risk_days))


def _print_receipts(receipts: list[tuple[str, Receipt]], opened: Desk, as_json: bool) -> None:
    if as_json:
        _print_json(
            [
                {
                    "file": name,
                    **_summary(opened, receipt.request),
                    "problems": [str(p) for p in receipt.problems],
                }
                for name, receipt in receipts
            ]
        )
    for name, receipt in receipts if not as_json else []:
        request = receipt.request
        pointer = f" of {request.first}" if request.first else ""
        due = f", due {request.due_at[:10]}" if request.due_at and request.open else ""
        print(f"{name}: request {request.id} {request.state.status}{pointer}{due}")
        for problem in receipt.problems:
            print(f"{name}: {problem}", file=sys.stderr)
    if any(receipt.request.state.status is Status.REJECTED for _, receipt in receipts):
        raise typer.Exit(Exit.BAD_INPUT)


def _print_request(opened: Desk, request: Request, as_json: bool) -> None:
    summary = _summary(opened, request)
    if as_json:
        _print_json(summary | {"events": [event.as_json() for event in request.events]})
        return
    for key, value in summary.items():
        if value is not None:
            print(f"{key:12} {value}")
    print()
    rows = [
        {"seq": event.seq, "at": event.at, "event": event.kind, "what": _told(event.body)}
        for event in request.events
    ]
    _print_rows(rows, ("seq", "at", "event", "what"), "")


def _told(body: Any) -> str:
    """Return an event's content on a line; lists of samples only by their length."""
    parts = []
    for key, value in body.items():
        told = f"{len(value)}" if key == "samples" else value if isinstance(value, str) else json.dumps(value)
        if value:
            parts.append(f"{key}: {told}")
    return ", ".join(parts)


def _print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], none: str) -> None:
    if not rows:
        if none:
            print(none)
        return
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_at", "").replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    console.print(table)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text[:16].replace("T", " ") if text.endswith("Z") and text[10:11] == "T" else text


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    app()
