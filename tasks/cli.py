"""``expunge``: requests to forget, from the command line."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tasks.core.errors import AtWorkError, ExpungeError
from tasks.core.files import only_writer, write_text
from tasks.core.params import load
from tasks.output import Exit, errors, fail, print_json, print_rows, want_json
from tasks.requests import events as facts
from tasks.requests import inbox as inboxes
from tasks.requests.catalogue import Catalogue
from tasks.requests.chain import Anchor, Head
from tasks.requests.copies import UNKNOWN, Copies
from tasks.requests.desk import Desk, Receipt, urgency
from tasks.requests.neighbours import Near
from tasks.requests.request import Request
from tasks.requests.schema import json_schema
from tasks.requests.settings import load_settings
from tasks.requests.standing import Row
from tasks.requests.states import Status
from tasks.requests.subjects import shared_lines

app = typer.Typer(
    help="Requests to forget training data: submit, decide, follow, verify. Run it in the repository's root.",
    epilog="Exit status: 0 done; 2 bad input or not allowed; 3 something needs a person (status, process, "
    "doctor); 4 verification failed (verify); 74 the operating system refused to read or write; 1 a defect.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verify_app = typer.Typer(no_args_is_help=True, help="Verify the ledger, a certificate, or an erasure.")
purge_app = typer.Typer(no_args_is_help=True, help="See what a purge would take, or carry it out now.")
suppression_app = typer.Typer(no_args_is_help=True, help="The list of what was erased and must not return.")
app.add_typer(verify_app, name="verify")
app.add_typer(purge_app, name="purge")
app.add_typer(suppression_app, name="suppression")

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, also if it fails.", callback=want_json, is_eager=True)
]
RequestId = Annotated[
    str, typer.Argument(help="The request's id, such as 20260501-9f86d081.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is recorded.", show_default=False)]
By = Annotated[
    str,
    typer.Option(help="Who decides; it is recorded. [default: the user's login name]", show_default=False),
]


def desk() -> Desk:
    """Open the desk that ``params.yaml`` describes; EXPUNGE_LEDGER and EXPUNGE_KEYS take precedence."""
    return Desk.open(load_settings(), os.environ, Path.cwd())


def _desk_to_write() -> Desk:
    """Open it to record something: refused where the requests of its ledger are carried out elsewhere."""
    from tasks.processing import checkout

    opened = desk()
    checkout.refuse_elsewhere(opened, Path.cwd())
    return opened


def _who(by: str) -> str:
    """Who decides: as given, or the login name; a bare user id where the system knows no name."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


def _print_schema(wanted: bool) -> None:
    if wanted:
        print_json(json_schema())
        raise typer.Exit


# taking requests


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
    """Submit requests. Each file is taken or rejected as a whole; exit status 2 if one was rejected.

    Where the data cannot be read, a request is received and dated, and resolved by the next process.
    """
    with errors():
        opened = _desk_to_write()
        catalogue = _catalogue()
        contents = [(path, path.read_bytes()) for path in files]  # all of them, or nothing is submitted
        opened.foresee(catalogue, ((content, path.name) for path, content in contents))
        receipts: list[tuple[str, Receipt | str]] = [
            (str(path), opened.submit(content, path.name, catalogue, channel="cli"))
            for path, content in contents
        ]
    _print_receipts(receipts, opened, as_json)


@app.command()
def inbox(as_json: AsJson = False) -> None:
    """Submit the files in data/requests/inbox; process does it, too. Exit status 2 if one was rejected."""
    with errors():
        opened = _desk_to_write()
        receipts = list(inboxes.take(opened, _catalogue()))
    _print_receipts(receipts, opened, as_json)


def _catalogue() -> Catalogue | None:
    """The samples that there are; ``None``, with a word, while the data cannot be read."""
    catalogue, reason = Catalogue.load_or_none()
    if catalogue is None:
        print(f"expunge: received, to be resolved once the data can be read: {reason}", file=sys.stderr)
    elif not catalogue.tells_copies:
        print(f"expunge: {UNKNOWN}", file=sys.stderr)
    return catalogue


@app.command("list")
def list_requests(
    everything: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    requester: Annotated[
        str, typer.Option(help="All that is held about this reference.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List requests, the most urgent first."""
    with errors():
        opened = desk()
        found = opened.rows(only_open=not everything and not requester, requester=requester or None)
    found.sort(key=lambda row: (not row.open, row.due_at or "", row.request))
    rows = [_summary(opened, row) for row in found]
    if as_json:
        print_json(rows)
        return
    columns = ["request", "status", "samples", "received_at", "due_at", "urgency", "next"]
    if any(row["shared"] for row in rows):
        columns.insert(3, "shared")
    none = "no requests" if everything or requester else "no open requests; --all lists those that ended, too"
    print_rows(rows, columns, none, opened.rules.zone)


@app.command()
def show(request: RequestId, as_json: AsJson = False) -> None:
    """Show one request: where it stands, what happened, and, if its batch failed, why."""
    with errors():
        opened = desk()
        found = opened.show(request)
    _print_request(opened, found, as_json)


# decisions


@app.command()
def approve(request: RequestId, by: By = "", reason: Reason = "", as_json: AsJson = False) -> None:
    """Approve a request, where requests.approval asks for it, or requests.shared as others show, too."""
    _decide(facts.Approved(by=_who(by), reason=reason), request, as_json)


@app.command()
def refuse(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Refuse a request, with the reason; one that waits behind it takes its place."""
    _decide(facts.Refused(by=_who(by), reason=reason), request, as_json)


@app.command()
def withdraw(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Take a request back for its requester; possible until its batch is promoted."""
    _decide(facts.Withdrawn(by=_who(by), reason=reason), request, as_json)


@app.command()
def extend(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Move the due date by requests.extension_months; possible once, with the reason."""
    _decide(facts.Extended(by=_who(by), reason=reason), request, as_json)


@app.command()
def retry(request: RequestId, reason: Reason = "", by: By = "", as_json: AsJson = False) -> None:
    """Try a request that failed once more, from where it failed."""
    _decide(facts.Retried(by=_who(by), reason=reason), request, as_json)


@app.command()
def hold(
    reason: Reason,
    request: Annotated[
        str, typer.Argument(help="The request's id; or give --requester or --sample.", show_default=False)
    ] = "",
    requester: Annotated[
        str,
        typer.Option(help="Hold all that this reference asks for, now and later.", show_default=False),
    ] = "",
    sample: Annotated[
        list[str] | None,
        typer.Option(help="Hold whatever names this sample id, now and later; can be repeated."),
    ] = None,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Put a request, or requests to come, on legal hold: nothing that cannot be undone happens."""
    if request and not requester and not sample:
        _decide(facts.Held(by=_who(by), reason=reason), request, as_json)
        return
    with errors():
        if request:
            raise ExpungeError("hold what? Give a request's id, or --requester, or --sample")
        opened = _desk_to_write()
        name = opened.place_hold(
            by=_who(by), reason=reason, requester=requester or None, ids=tuple(sample or ())
        )
        held = [row.request for row in opened.rows(only_open=True) if row.held]
    if as_json:
        print_json({"hold": name, "held": held})
    else:
        print(f"{name} stands; on hold now: {', '.join(held) or 'no request'}")


@app.command()
def release(
    what: Annotated[
        str, typer.Argument(help="A request's id, or a standing hold's (expunge holds).", show_default=False)
    ],
    reason: Reason,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """End a legal hold: that of a request, or a standing one."""
    if not what.startswith("hold-"):
        _decide(facts.Released(by=_who(by), reason=reason), what, as_json)
        return
    with errors():
        opened = _desk_to_write()
        opened.lift_hold(what, by=_who(by), reason=reason)
    if as_json:
        print_json({"lifted": what})
    else:
        print(f"{what} is lifted")


@app.command()
def holds(as_json: AsJson = False) -> None:
    """List the legal holds that stand: of requests, requesters and samples."""
    with errors():
        opened = desk()
        rows: list[dict[str, Any]] = [
            {
                "hold": each.id,
                "at": each.at,
                "of": f"requester {each.placed.requester}"
                if each.placed.requester
                else f"{len(each.placed.samples)} sample(s)",
                "by": each.placed.by,
                "reason": each.placed.reason,
            }
            for each in opened.holds()
        ]
        for row in opened.rows(only_open=True):
            if row.held:
                last = opened.show(row.request).latest(facts.Held)
                assert last is not None  # noqa: S101
                of = f"this request, by {last.standing}" if last.standing else "this request"
                rows.append({"hold": row.request, "at": "", "of": of, "by": last.by, "reason": last.reason})
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("hold", "at", "of", "by", "reason"), "no holds", opened.rules.zone)


@app.command("destroy-key")
def destroy_key(request: RequestId, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Destroy the key of a request that has ended: nobody can tell then which samples it named."""
    with errors():
        opened = _desk_to_write()
        ended = opened.destroy_key(request, by=_who(by), reason=reason)
    _print_request(opened, ended, as_json)


# carrying out


@app.command()
def process(as_json: AsJson = False) -> None:
    """Carry out what waits, as the deployment process-requests does, without Prefect.

    Exit status 3 if something needs a person or waits for what is down; the rest is carried out all the same.
    While another process carries out requests in this checkout, nothing is done; that is no error.
    """
    try:
        _carry_out(lambda processor: processor.process(), as_json)
    except AtWorkError as error:
        if as_json:
            print_json({"skipped": str(error)})
        _say_to_stderr(f"expunge: skipped: {error}")


def _carry_out(work: Callable[[Any], list[str]], as_json: bool) -> None:
    """Let the processor work, alone in this checkout; say what needs a person, and what is open.

    Raises
    ------
    AtWorkError
        If another process is at work there.
    """
    with errors(AtWorkError):
        from tasks.processing.dvc_repro import run_stages
        from tasks.processing.processor import Processor

        with only_writer(Path("pipeline")):
            opened = desk()
            processor = Processor(
                root=Path.cwd(),
                desk=opened,
                run=run_stages,
                environ=os.environ,
                log=_say_to_stderr,
                tell=_say_to_stderr,
            )
            problems = work(processor)
            rows = [_summary(opened, row) for row in opened.rows(only_open=True)]
    if as_json:
        print_json({"problems": problems, "open": rows})
    for problem in problems:
        _say_to_stderr(f"expunge: {problem}")
    if problems:
        raise typer.Exit(Exit.ATTENTION)


@app.command()
def status(
    reconcile: Annotated[
        bool, typer.Option(help="Also compare the ledger with MLflow, Prefect and data/base.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say what is due, and what needs a person; exit status 3 if anything does."""
    with errors():
        from tasks.processing.attention import what_needs_a_person

        opened = desk()
        found = opened.rows(only_open=True)
        params = load()
        needs = what_needs_a_person(opened, params, Path.cwd(), os.environ, reconcile=reconcile)
    rows = [_summary(opened, row) for row in sorted(found, key=lambda row: row.due_at or "")]
    counts = {name: sum(row["urgency"] == name for row in rows) for name in ("overdue", "at risk", "on time")}
    if as_json:
        print_json({"at": opened.clock().isoformat(), "counts": counts, "open": rows, "attention": needs})
    else:
        print(f"{len(rows)} open: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        urgent = [
            row for row in rows if row["urgency"] in {"overdue", "at risk"} or row["status"] == "failed"
        ]
        print_rows(urgent, ("request", "status", "due_at", "urgency", "next"), "", opened.rules.zone)
        for line in needs:
            print(line)
    if needs:
        raise typer.Exit(Exit.ATTENTION)


@app.command()
def doctor(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the table of states anew from the events first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine chain, keys, list, alias, base, stores, disk and clock; exit status 3 if one needs care."""
    with errors():
        from tasks.processing.doctor import examine

        opened = desk()
        if rebuild:
            opened.ledger.rebuild_standing()
        found = list(examine(opened, load(), Path.cwd(), os.environ))
    if as_json:
        print_json([each.as_json() for each in found])
    else:
        print_rows([each.as_json() for each in found], ("part", "state", "found", "do"), "")
    if any(each.state == "needs care" for each in found):
        raise typer.Exit(Exit.ATTENTION)


@app.command()
def settle(reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Carry out the requests of this ledger in this checkout from now on, and nowhere else."""
    with errors():
        from tasks.processing import checkout

        opened = desk()
        with only_writer(Path("pipeline")):
            if not reason.strip():
                raise ExpungeError("give a reason; the record must say why it was moved")
            checkout.settle(opened, Path.cwd(), by=_who(by), reason=reason)
    if as_json:
        print_json({"checkout": checkout.name_of(Path.cwd())})
    else:
        print("requests of this ledger are carried out here from now on")


@app.command()
def adopt(
    file: Annotated[
        Path,
        typer.Argument(help="A state dict: *.safetensors, or as torch.save writes it.", show_default=False),
    ],
    trained_on: Annotated[
        Path | None,
        typer.Option(
            help="The ids of the samples that it was trained on, one a line, as in data/split/samples.csv. "
            "What is not on the list it has never seen.",
            show_default=False,
        ),
    ] = None,
    trained_on_all: Annotated[
        bool,
        typer.Option("--trained-on-all", help="It was trained on all samples of part train, and no others."),
    ] = False,
    model: Annotated[
        str, typer.Option(help="What train.model must be. [default: what it is]", show_default=False)
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option(help="What an option of the model must be, as key=value; can be repeated."),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help="The classes in the order of its outputs, as a,b,c or a JSON file with a list. "
            "[default: that of data/split/classes.json]",
            show_default=False,
        ),
    ] = "",
    note: Annotated[
        str,
        typer.Option(help="What else is known of its training; certificates quote it.", show_default=False),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the model that is in production.")
    ] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Put weights that were not trained here into production: requests start from them.

    The model and its options are those of train.model in params.yaml. The file is read without running
    code, checked against the images and classes of data/split, registered in MLflow and recorded. What is
    not known of its training is said in every certificate, until a model trained from scratch replaces it.
    """
    with errors():
        from tasks.processing import adoption, candidate
        from tasks.processing import adoption_words as words

        opened = _desk_to_write()
        if (trained_on is None) != trained_on_all:
            raise ExpungeError(
                "what was it trained on? Give one of --trained-on FILE, --trained-on-all; it is recorded"
            )
        params = load()
        words.see_that_params_agree(params, model, words.parse_options(option or ()))
        with only_writer(Path("pipeline")):
            names = words.parse_classes(classes)
            statement = candidate.Statement(_who(by), trained_on, names, note or None)
            found = candidate.examine(file, statement, params, opened)
            outcome = adoption.adopt(found, opened, params, Path.cwd(), replace=replace)
    if as_json:
        print_json(words.as_json(found, outcome))
    else:
        for line in words.told(file, found, outcome):
            print(line)
    for warning in found.warnings:
        _say_to_stderr(f"expunge: warning: {warning}")


@app.command()
def rollback(version: str, reason: Reason, by: By = "", as_json: AsJson = False) -> None:
    """Put an earlier version of the model into production, unless it knows samples that were erased since."""
    with errors():
        from tasks.processing.rollback import roll_back

        opened = _desk_to_write()
        with only_writer(Path("pipeline")):
            current = roll_back(opened, load(), Path.cwd(), version, by=_who(by), reason=reason)
    if as_json:
        print_json(current.model_dump())
    else:
        print(f"in production: version {current.version}, weights {current.weights}")


# following


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
    with errors():
        from tasks.requests import trace as tracing

        opened, root = desk(), Path.cwd()
        ways: dict[str, tuple[str, Callable[[str], Any]]] = {
            "model": (model, tracing.by_model),
            "run": (run, lambda value: tracing.by_run(value, root)),
            "commit": (commit, lambda value: tracing.by_commit(value, root)),
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
        print_json({name: [step.as_json() for step in steps] for name, steps in chains.items()})
        return
    for name, steps in chains.items():
        print(f"request {name}")
        for step in steps:
            print(f"  {step.seq:>4}  {step.at[:19]}Z  {step.event:10} {step.what}")
            for key, value in step.ids.items():
                print(f"        {key}: {value}")


@app.command()
def subject(
    who: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE",
            help="The person's reference, as the source has it; - reads it from standard input, so that no "
            "shell keeps it.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Tell what is held of a person: which samples, where, in which models, since when; nothing is recorded.

    Exit status 0 also if nothing is held.
    """
    with errors():
        from tasks.processing.access import held_of

        opened = desk()
        name = sys.stdin.readline().rstrip("\r\n") if who == "-" else who
        found = held_of(name, opened, load(), Path.cwd())
    if as_json:
        print_json(found.as_json())
        return
    value = found.as_json()
    if not found.samples:
        print("nothing is held of this person")
    else:
        shared = sum(each.people > 1 for each in found.samples)
        print(f"{len(found.samples)} sample(s) are held, {shared} of which show other people, too")
        print_rows(value["samples"], ("id", "path", "part", "class", "people", "learned"), "")
        print("\nwhere:")
        print_rows(value["places"], ("where", "what"), "")
        print("\nmodels that learned from them, or may have:")
        of_model = ("version", "weights", "state", "samples", "since", "commit")
        print_rows(value["models"], of_model, "none", opened.rules.zone)
        if found.since:
            print(f"\nheld since {found.since.at or 'unknown'}: {found.since.meaning}")
            if found.since.commit:
                print(f"commit {found.since.commit}")
    print("\nrequests:")
    of_request = ("request", "status", "received_at", "how")
    print_rows(value["requests"], of_request, "none", opened.rules.zone)
    for line in found.unknown:
        print(f"not told: {line}")


@app.command()
def report(as_json: AsJson = False) -> None:
    """Sum up all requests: how many, how they ended, by which method, and how long that took."""
    with errors():
        from tasks.requests.summary import summarise

        opened = desk()
        found = summarise(opened, opened.clock())
    if as_json:
        print_json(found)
        return
    for heading, values in found.items():
        shown = (
            ", ".join(f"{key} {value}" for key, value in values.items())
            if isinstance(values, dict)
            else values
        )
        print(f"{heading:22} {shown if shown not in ('', None) else '-'}")


# verifying


Anchors = Annotated[
    list[str] | None,
    typer.Option("--anchor", help="A head that was written down: <number>:<hash>. Can be repeated."),
]


@verify_app.command("ledger")
def verify_ledger(anchors: Anchors = None, as_json: AsJson = False) -> None:
    """Verify that the ledger is unbroken and passes through every anchor; exit status 4 if not."""
    with errors():
        from tasks.requests.commits import anchors_in_git

        known = [Anchor(Head.parse(anchor), "--anchor") for anchor in anchors or ()]
        committed = anchors_in_git(Path.cwd())
        opened = desk()
        marked = opened.marks()
    try:
        head = opened.check_whole([*known, *(committed or ())])
    except ExpungeError as error:
        fail(str(error), Exit.NOT_VERIFIED)
    count = len(known) + len(committed or ()) + len(marked)
    if committed is None:
        print("expunge: no Git repository, so no anchors of its commits", file=sys.stderr)
    if as_json:
        print_json({"events": head.seq, "head": str(head), "anchors": count})
    else:
        print(f"{head.seq} events, unbroken, on {count} anchor(s); head {head}")


@verify_app.command("certificate")
def verify_certificate(
    file: Annotated[Path, typer.Argument(help="The certificate's JSON.", show_default=False)],
    public_key: Annotated[
        str,
        typer.Option(
            help="The key that must have signed it: 64 hex digits, or a file of keys as `expunge public-key` "
            "prints it. [default: in a checkout, what the ledger recorded]",
            show_default=False,
        ),
    ] = "",
    anchors: Anchors = None,
    as_json: AsJson = False,
) -> None:
    """Verify a certificate: with a published key anywhere, without a ledger; else against this ledger.

    Exit status 4 unless it was signed by that key and everything in it agrees.
    """
    with errors():
        from tasks.requests import signing, verification

        known: list[Any] = [Head.parse(anchor) for anchor in anchors or ()]
        content = verification.read(file)
        if public_key:
            pinned: Collection[Any] = signing.read_public_keys(public_key)
        elif Path("params.yaml").exists():
            from tasks.processing.certifying import key_periods

            ledger = desk().ledger
            pinned = key_periods(ledger)
            known += ledger.events()
        else:
            pinned = ()
        found = verification.verify(content, pinned=pinned, anchors=known)
    if as_json:
        checks = [asdict(check) for check in found.checks]
        print_json({"file": str(file), "result": str(found.result), "checks": checks})
    else:
        print_rows([asdict(check) for check in found.checks], ("ok", "what", "how"), "")
        print(f"{file}: {found.result}")
    if not found.ok:
        raise typer.Exit(Exit.NOT_VERIFIED)


@verify_app.command("erasure")
def verify_erasure(request: RequestId, as_json: AsJson = False) -> None:
    """Search every store for the samples of a request; exit status 4 unless all is gone."""
    with errors():
        from tasks.erasure.purge import verify as search

        opened = desk()
        found = opened.show(request)
        items = search(_purge(opened), [found])
    rows = [line.as_json() for line in items]
    details = [detail.as_json() for detail in items.details]
    if as_json:
        status = str(found.state.status)
        print_json({"request": found.id, "status": status, "stores": rows, "details": details})
    else:
        print_rows(rows, ("store", "outcome", "count", "scope", "detail"), "")
        if details:
            print()
            print_rows(details, ("store", "outcome", "item", "why"), "")
    if not items.holds:
        message = f"request {request}: not all is known to be gone, see what does not hold"
        fail(message, Exit.NOT_VERIFIED)


# certificates


@app.command()
def certificate(request: RequestId, as_json: AsJson = False) -> None:
    """Make the certificate of a request again, as it was, signed with the key of today."""
    with errors():
        from tasks.processing.certifying import certify
        from tasks.processing.processor import CERTIFICATES

        opened = _desk_to_write()
        path = certify(opened, opened.show(request), CERTIFICATES)
    if as_json:
        print_json({"request": request, "certificate": str(path)})
    else:
        print(path)


@app.command("public-key")
def public_key(as_json: AsJson = False) -> None:
    """Print the key with which anybody verifies certificates; publish it where requesters find it."""
    with errors():
        from tasks.processing.certifying import key_periods

        periods = key_periods(desk().ledger)
        if not periods:
            raise ExpungeError(
                "there is no signing key yet; it is made with the first certificate, when a request is closed"
            )
        key = periods[-1].key
    if as_json:
        print_json({"public_key": key.hex, "key_id": key.key_id})
    else:
        print(key.published(), end="")


@app.command("rotate-key")
def rotate_key(
    reason: Reason,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Nothing that the old key signed is to be trusted.")
    ] = False,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Replace the key that signs certificates, because it was lost or is known to others."""
    with errors():
        from tasks.processing import certifying

        if not reason.strip():
            raise ExpungeError("give a reason; the record must say why the key was replaced")
        key = certifying.rotate_key(_desk_to_write(), by=_who(by), reason=reason, compromised=compromised)
    if as_json:
        print_json({"public_key": key.hex, "key_id": key.key_id})
    else:
        print(f"certificates are signed by {key.hex} from now on; publish it: expunge public-key")


# purging


@purge_app.command("plan")
def purge_plan(request: RequestId, as_json: AsJson = False) -> None:
    """List what the purge of a request would take from every store; nothing is changed."""
    with errors():
        opened = desk()
        items = _purge(opened).plan([opened.show(request)])
    rows = [item.as_json() for item in items]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("store", "outcome", "item", "why"), "nothing would be taken")


@purge_app.command("run")
def purge_run(request: RequestId, as_json: AsJson = False) -> None:
    """Purge a promoted request and its batch now, or search again what was down or had to be mended.

    process does the same by itself for every request. Exit status as of process.
    """
    with errors():
        _carry_out(lambda processor: processor.purge_now(request), as_json)


def _purge(opened: Desk) -> Any:
    from tasks.erasure.purge import Purge

    return Purge(Path.cwd(), load(), opened, os.environ)


# the list of what was erased


@suppression_app.command("restore")
def suppression_restore(as_json: AsJson = False) -> None:
    """Write the list anew with all that this folder of keys knows of, after a branch or a merge cut it."""
    _suppression("restore", as_json)


@suppression_app.command("adopt")
def suppression_adopt(as_json: AsJson = False) -> None:
    """Accept the list that is checked out as the newest, where its mark beside the keys was lost."""
    _suppression("adopt", as_json)


def _suppression(what: str, as_json: bool) -> None:
    with errors():
        from tasks.requests import high_water

        listed = high_water.list_of(load().split)
        found = getattr(high_water, what)(listed, desk().keys)
    if as_json:
        print_json({"list": str(listed), "lines": len(found.lines)})
    else:
        print(f"{listed} holds {len(found.lines)} line(s); commit it if Git says that it changed")


# printing


def _decide(decision: facts.Decision, request: str, as_json: bool) -> None:
    with errors():
        opened = _desk_to_write()
        decided = opened.decide(decision, request)
    _print_request(opened, decided, as_json)


def _summary(opened: Desk, row: Row) -> dict[str, Any]:
    """Return what a list shows of a request."""
    at_risk = timedelta(days=opened.settings.at_risk_days)
    return {
        "request": row.request,
        "status": str(row.status),
        "held": row.held,
        "received_at": row.received_at,
        "due_at": row.due_at,
        "urgency": urgency(row, opened.clock(), at_risk),
        "samples": row.samples,
        "shared": row.shared,
        "ground": row.ground,
        "requester": row.requester,
        "first": row.first,
        "batch": row.batch,
        "next": opened.next_of(row),
    }


def _print_receipts(receipts: list[tuple[str, Receipt | str]], opened: Desk, as_json: bool) -> None:
    shown: list[dict[str, Any]] = []
    bad = False
    for name, receipt in receipts:
        if isinstance(receipt, str):
            bad = True
            shown.append({"file": name, "problems": [receipt]})
            if not as_json:
                print(f"{name}: {receipt}", file=sys.stderr)
            continue
        (row,) = opened.rows(request=receipt.request.id)
        bad |= row.status is Status.REJECTED
        problems = [str(problem) for problem in receipt.problems]
        copies = asdict(receipt.copies) if receipt.copies is not None else None
        validated = receipt.request.latest(facts.Validated)
        counts = validated.model_dump(include={"shared", "near_copies", "by_features"}) if validated else {}
        summary = _summary(opened, row) | counts
        told = {"problems": problems, "copies": copies, "untold": receipt.untold or None}
        shown.append({"file": name, **summary, **told})
        if not as_json:
            pointer = f"{'' if row.status is Status.BEHIND else ' of'} {row.first}" if row.first else ""
            due = f", due {opened.day(row.due_at)}" if row.due_at and row.open else ""
            print(f"{name}: request {row.request} {row.status}{pointer}{due}")
            for line in receipt.lines():
                print(f"{name}: {line}")
            if row.shared and opened.waits_for_approval(row):
                print(f"{name}: {opened.next_of(row)}")
            if receipt.waits:
                print(f"{name}: {receipt.waits}", file=sys.stderr)
            for number, line in enumerate((receipt.copies or Copies()).lines()):
                print(line if number else f"{name}: {line}")
            for problem in problems:
                print(f"{name}: {problem}", file=sys.stderr)
    if as_json:
        print_json(shown)
    if bad:
        raise typer.Exit(Exit.BAD_INPUT)


def _print_request(opened: Desk, request: Request, as_json: bool) -> None:
    from tasks.processing import steplog

    (row,) = opened.rows(request=request.id)
    summary = _summary(opened, row)
    why = steplog.last(request.batch) if request.batch and row.status is Status.FAILED else ""
    copies, shared = _copies(opened, request), _shared(opened, request)
    events = sorted([*request.events, *request.of_batch], key=lambda event: event.seq)
    if as_json:
        told = [event.as_json() for event in events]
        shown = {
            "why": why or None,
            "copies": asdict(copies) if copies is not None else None,
            "shared_samples": shared,
        }
        print_json(summary | shown | {"events": told})
        return
    for key, value in (summary | {"why": why or None}).items():
        if value is not None:
            print(f"{key:12} {value}")
    for line in [*(copies or Copies()).lines(), *shared_lines(shared)]:
        print(line)
    print()
    rows = [
        {"seq": event.seq, "at": event.at, "event": event.kind, "what": event.fact.told()} for event in events
    ]
    print_rows(rows, ("seq", "at", "event", "what"), "", opened.rules.zone)


def _copies(opened: Desk, request: Request) -> Copies | None:
    """Other samples that show the same pictures as those of an open request, if it was told of any."""
    validated = request.latest(facts.Validated)
    if not (request.open and validated and validated.copies):
        return None
    names, (catalogue, _) = opened.keys.names(request.id), Catalogue.load_or_none(patience=0)
    if not (names and catalogue):
        return None
    near = catalogue.neighbours.of(opened, names) if validated.by_features else Near()
    if near.untold:
        _say_to_stderr(f"expunge: {near.untold}")
    return catalogue.copies_of(names, near.ids)


def _shared(opened: Desk, request: Request) -> dict[str, int]:
    """How many people each sample of an open request shows, of those that show others, too."""
    validated = request.latest(facts.Validated)
    if not (request.open and validated and validated.shared):
        return {}
    names, (catalogue, _) = opened.keys.names(request.id), Catalogue.load_or_none(patience=0)
    people = catalogue.subjects.people if catalogue else {}
    return {name: people[name] for name in names or () if people.get(name, 0) > 1}


def _say_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app()
