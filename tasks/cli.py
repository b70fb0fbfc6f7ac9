"""``expunge``: requests to forget, from the command line."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer, write_text
from tasks.core.params import load
from tasks.requests import inbox as inboxes
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk, Receipt, Request
from tasks.requests.ledger import Head, check_chain
from tasks.requests.schema import json_schema
from tasks.requests.settings import load_settings
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
    return Desk.open(load_settings(), os.environ, Path.cwd())


def _print_schema(wanted: bool) -> None:
    if wanted:
        _print_json(json_schema())
        raise typer.Exit


@app.command()
def submit(
    files: Annotated[
        list[Path], typer.Argument(help="Requests, *.json or *.csv; one a file.", show_default=False)
    ],
    as_json: AsJson = False,
    schema: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--schema", help="Print the JSON Schema of a request.", callback=_print_schema, is_eager=True
        ),
    ] = False,
) -> None:
    """Submit requests. Each file is taken or rejected as a whole; exit status 2 if one was rejected."""
    with _errors():
        opened, catalogue = desk(), Catalogue.load()
        contents = [(path, path.read_bytes()) for path in files]  # all of them, or nothing is submitted
        receipts = [
            (str(path), opened.submit(content, path.name, catalogue, channel="cli"))
            for path, content in contents
        ]
    _print_receipts(receipts, opened, as_json)


@app.command()
def inbox(as_json: AsJson = False) -> None:
    """Submit the files in data/requests/inbox. Exit status 2 if one was rejected or cannot be taken."""
    with _errors():
        opened = desk()
        outcomes = list(inboxes.take(opened, Catalogue.load()))
    _print_receipts(outcomes, opened, as_json)


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


@app.command("destroy-key")
def destroy_key(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Destroy the key of a request that has ended: nobody can tell then which samples it named."""
    with _errors():
        opened = desk()
        ended = opened.destroy_key(request, by=by or getpass.getuser(), reason=reason)
    _print_request(opened, ended, as_json)


@app.command()
def process(as_json: AsJson = False) -> None:
    """Carry out what waits, as the deployment process-requests does, without Prefect."""
    with _errors():
        from tasks.processing.dvc_repro import run_stages
        from tasks.processing.processor import Processor

        with only_writer(Path("pipeline")):
            opened = desk()
            processor = Processor(
                root=Path.cwd(), desk=opened, run=run_stages, environ=os.environ, log=_say_to_stderr
            )
            problems = processor.process()
    if as_json:
        _print_json(
            {"problems": problems, "open": [_summary(opened, r) for r in opened.requests() if r.open]}
        )
    if problems:
        _fail("; ".join(problems), Exit.BAD_INPUT)


@app.command()
def status(
    reconcile: Annotated[
        bool, typer.Option(help="Also compare the ledger with MLflow, Prefect and data/base.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is due, at risk, overdue, and what does not fit the ledger; exit status 3 if overdue."""
    with _errors():
        opened = desk()
        found = [request for request in opened.requests() if request.open]
        differ = _differences(opened) if reconcile else []
    rows = [_summary(opened, request) for request in sorted(found, key=lambda request: request.due_at or "")]
    counts = {name: sum(row["urgency"] == name for row in rows) for name in ("overdue", "at risk", "on time")}
    if as_json:
        _print_json({"at": opened.clock().isoformat(), "counts": counts, "open": rows, "differences": differ})
    else:
        print(f"{len(rows)} open: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        urgent = [
            row for row in rows if row["urgency"] in {"overdue", "at risk"} or row["status"] == "failed"
        ]
        _print_rows(urgent, ("request", "status", "due_at", "urgency", "next"), "")
        for line in differ:
            print(line)
    if counts["overdue"]:
        raise typer.Exit(Exit.LATE)


def _differences(opened: Desk) -> list[str]:
    from tasks.processing.reconcile import differences

    return differences(opened, load(), Path.cwd(), os.environ)


@app.command()
def trace(
    request: Annotated[str, typer.Argument(help="The request's id.", show_default=False)] = "",
    model: Annotated[
        str,
        typer.Option(
            help="A version of the registered model, or the SHA-256 of weights.", show_default=False
        ),
    ] = "",
    run: Annotated[
        str,
        typer.Option(help="An MLflow run's id, a run's key, or a Prefect flow run's id.", show_default=False),
    ] = "",
    commit: Annotated[str, typer.Option(help="A Git commit.", show_default=False)] = "",
    html: Annotated[
        Path | None, typer.Option(help="Also write the chain as a page to this file.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Follow a request to the weights it changed, or find the requests behind a model, a run or a commit."""
    with _errors():
        from tasks.requests import trace as tracing

        opened, root = desk(), Path.cwd()
        ways = {
            "model": (model, tracing.by_model),
            "run": (run, lambda value: tracing.by_run(value, root)),
            "commit": (commit, tracing.by_commit),
        }
        asked = [name for name, (value, _) in ways.items() if value] + (["request"] if request else [])
        if len(asked) != 1:
            raise ExpungeError("trace what? Give a request's id, or one of --model, --run, --commit")
        if request:
            found = [opened.show(request)]
        else:
            value, matches = ways[asked[0]]
            found = tracing.requests_of(opened, matches(value), f"{asked[0]} {value}")
        chains = {each.id: tracing.trace(each, root) for each in found}
        if html is not None:
            write_text(html, tracing.render(chains))
    if as_json:
        _print_json({name: [step.as_json() for step in steps] for name, steps in chains.items()})
        return
    for name, steps in chains.items():
        print(f"request {name}")
        for step in steps:
            print(f"  {step.seq:>4}  {step.at[:19]}Z  {step.event:10} {step.what}")
            for key, value in step.ids.items():
                print(f"        {key}: {value}")


@app.command()
def verify(
    what: Annotated[
        str,
        typer.Argument(
            help="A request's id: search every store for its samples. A certificate's file: check it. "
            "Nothing: check the ledger.",
            show_default=False,
        ),
    ] = "",
    anchors: Annotated[
        list[str] | None,
        typer.Option("--anchor", help="A head that was written down: <number>:<hash>. Can be repeated."),
    ] = None,
    public_key: Annotated[
        str, typer.Option(help="The key that a certificate must be signed with, in hex.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Verify a purge, a certificate or the ledger; exit status 4 if it does not hold."""
    if what.endswith(".json") or "/" in what:
        _verify_certificate(Path(what), anchors or [], public_key, as_json)
    elif what:
        _verify_purge(what, as_json)
    else:
        _verify_ledger(anchors or [], as_json)


def _verify_ledger(anchors: list[str], as_json: bool) -> None:
    with _errors():
        from tasks.processing.repository import anchors_in_git

        known = [Head.parse(anchor) for anchor in anchors]
        committed = anchors_in_git(Path.cwd())
        events = desk().ledger.events()
    try:
        head = check_chain(events, [*known, *committed])
    except ExpungeError as error:
        _fail(str(error), Exit.NOT_VERIFIED)
    if as_json:
        _print_json({"events": head.seq, "head": str(head), "anchors": len(known) + len(committed)})
    else:
        print(f"{head.seq} events, unbroken, on {len(known) + len(committed)} anchor(s); head {head}")


def _verify_certificate(path: Path, anchors: list[str], public_key: str, as_json: bool) -> None:
    with _errors():
        from tasks.requests import certificate

        document = certificate.read(path)
        known = [Head.parse(anchor) for anchor in anchors]
        checks = certificate.check(document, public_key=public_key or None, anchors=known)
    rows = [{"check": each.what, "ok": "yes" if each.ok else "NO", "how": each.how} for each in checks]
    if as_json:
        _print_json([{"check": each.what, "ok": each.ok, "how": each.how} for each in checks])
    else:
        _print_rows(rows, ("check", "ok", "how"), "")
    if not all(each.ok for each in checks):
        _fail(f"{path} does not hold", Exit.NOT_VERIFIED)


def _verify_purge(request: str, as_json: bool) -> None:
    with _errors():
        from tasks.erasure.purge import verify as search

        opened = desk()
        found = opened.show(request)
        items = search(_purge(opened), [found])
    rows = [item.as_json() for item in items]
    if as_json:
        _print_json({"request": found.id, "status": str(found.state.status), "stores": rows})
    else:
        _print_rows(rows, ("store", "item", "result", "how"), "")
    if any(item.result.startswith("retained") for item in items):
        _fail(f"request {request}: not all is gone, see what is retained", Exit.NOT_VERIFIED)


@app.command()
def purge(
    request: RequestId,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Needed: the purge itself follows promotion by itself.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what the purge of a request would take from every store; nothing is changed."""
    with _errors():
        if not dry_run:
            raise ExpungeError("only a dry run is done by hand; process-requests purges after promotion")
        opened = desk()
        items = _purge(opened).plan([opened.show(request)])
    rows = [item.as_json() for item in items]
    if as_json:
        _print_json(rows)
    else:
        _print_rows(rows, ("store", "item", "result", "how"), "nothing would be taken")


def _purge(opened: Desk) -> Any:
    from tasks.erasure.purge import Purge

    return Purge(Path.cwd(), load(), opened, os.environ)


@app.command()
def report(as_json: AsJson = False) -> None:
    """Sum up all requests: how many, how they ended, by which method, and how long that took."""
    with _errors():
        from tasks.requests.summary import summarise

        opened = desk()
        found = summarise(opened.requests(), opened.clock())
    if as_json:
        _print_json(found)
        return
    for heading, values in found.items():
        shown = (
            ", ".join(f"{key} {value}" for key, value in values.items())
            if isinstance(values, dict)
            else values
        )
        print(f"{heading:22} {shown if shown not in ('', None) else '-'}")


@app.command()
def rollback(version: str, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Put an earlier version of the model into production, unless it knows samples that were erased since."""
    with _errors():
        from tasks.processing.rollback import roll_back

        opened = desk()
        with only_writer(Path("pipeline")):
            current = roll_back(
                opened, load(), Path.cwd(), version, by=by or getpass.getuser(), reason=reason
            )
    if as_json:
        _print_json(current.as_json())
    else:
        print(f"in production: version {current.version}, weights {current.weights}")


def _decide(kind: str, request: str, by: str, reason: str, as_json: bool) -> None:
    with _errors():
        opened = desk()
        decided = opened.decide(kind, request, by=by or getpass.getuser(), reason=reason)
    _print_request(opened, decided, as_json)


def _summary(opened: Desk, request: Request) -> dict[str, Any]:
    return request.summary(opened.clock(), timedelta(days=opened.settings.at_risk_days))


def _print_receipts(outcomes: Sequence[tuple[str, Receipt | str]], opened: Desk, as_json: bool) -> None:
    receipts = [(name, outcome) for name, outcome in outcomes if isinstance(outcome, Receipt)]
    stuck = [(name, outcome) for name, outcome in outcomes if isinstance(outcome, str)]
    if as_json:
        _print_json(
            [{"file": name, "problems": [problem]} for name, problem in stuck]
            + [
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
    for name, reason in stuck:
        print(f"{name}: {reason}", file=sys.stderr)
    if stuck or any(receipt.request.state.status is Status.REJECTED for _, receipt in receipts):
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
    from rich.console import Console
    from rich.table import Table

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


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    app()
