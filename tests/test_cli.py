from __future__ import annotations

import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tasks import cli
from tasks.output import Exit
from tasks.requests import events as facts
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.subjects import write_subjects
from tests.requests.conftest import LIFE, Clock, catalogue, clock, desk, root, submission

__all__ = ["catalogue", "clock", "desk", "root"]

PROJECT = Path(__file__).parents[1]
COMMANDS = (
    "submit", "inbox", "list", "show", "approve", "refuse", "withdraw", "extend", "retry", "hold", "release",
    "holds", "destroy-key", "adopt", "process", "status", "doctor", "settle", "rollback", "trace", "subject",
    "report",
    "verify ledger", "verify erasure", "purge plan", "purge run",
)  # fmt: skip

Run = Callable[..., Result]


@pytest.fixture
def run(desk: Desk, root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in a project with parameters and an empty list of what was erased."""
    shutil.copy(PROJECT / "params.yaml", root)
    (root / "data/requests").mkdir(exist_ok=True)
    shutil.copy(PROJECT / "data/requests/erased.txt", root / "data/requests")
    monkeypatch.setattr(cli, "desk", lambda: desk)
    return lambda *arguments: CliRunner().invoke(cli.app, arguments)


def submitted(run: Run, name: str = "a.json", **changes: object) -> str:
    Path(name).write_bytes(submission(**changes))
    result = run("submit", name, "--json")
    (receipt,) = json.loads(result.stdout)
    request: str = receipt["request"]
    return request


def test_submit_says_what_became_of_each_file(run: Run) -> None:
    Path("good.json").write_bytes(submission())
    Path("bad.json").write_bytes(submission(ground="why"))
    result = run("submit", "good.json", "bad.json")
    assert result.exit_code == Exit.BAD_INPUT
    good, bad = result.stdout.splitlines()
    assert good.startswith("good.json: request 20260501-")
    assert good.endswith(" validated, due 2026-06-01")
    assert bad.endswith(" rejected")
    assert "bad.json: line 1: ground 'why': must be one of" in result.stderr
    again = run("submit", "good.json").stdout.strip()
    assert again.endswith(f" behind {good.split()[2]}, due 2026-06-01")


COPIES = """sample_id,same,alike
train/3.png,1,1
train/4.png,1,1
train/5.png,0,1
test/0.png,1,1
"""


def test_samples_that_show_the_same_picture_are_told_with_what_to_do(run: Run, desk: Desk) -> None:
    Path("data/split/copies.csv").write_text(COPIES)
    Path("a.json").write_bytes(submission())
    result = run("submit", "a.json")
    assert result.exit_code == 0
    told, *lines = result.stdout.splitlines()
    request = told.split()[2]
    assert lines == [
        "a.json: 3 other sample(s) show the same picture and stay:",
        "  train/4.png: the same pixels",
        "  train/5.png: nearly the same",
        "  test/0.png: a test sample",
        "  to have them erased, too, submit a request that names them, or has near_copies: include",
    ]
    shown = run("show", request).stdout
    assert lines[1] in shown
    (row,) = json.loads(run("submit", "a.json", "--json").stdout)
    assert row["copies"] == {
        "same": ["train/4.png"], "alike": ["train/5.png"], "tests": ["test/0.png"], "features": [],
        "test_features": [],
    }  # fmt: skip
    assert (row["by_features"], row["untold"]) == (0, None)
    assert json.loads(run("show", request, "--json").stdout)["copies"] == row["copies"]
    Path("data/split/copies.csv").write_text("sample_id,same,alike\n")  # they have left since
    assert not any(json.loads(run("show", request, "--json").stdout)["copies"].values())
    (validated,) = (event for event in desk.show(request).events if event.kind == "validated")
    assert validated.text.count('"copies":3') == 1
    assert "train/" not in "".join(event.text for event in desk.ledger.events())


def test_copies_that_are_asked_for_as_well_or_are_none_are_not_told(run: Run) -> None:
    assert submitted(run)
    Path("data/split/copies.csv").write_text(COPIES.replace("test/0.png,1,1\n", ""))
    Path("a.json").write_bytes(submission(samples={"index": [3, 4, 5]}))
    assert len(run("submit", "a.json").stdout.splitlines()) == 1
    Path("b.json").write_bytes(submission(samples={"index": [8]}))
    assert len(run("submit", "b.json").stdout.splitlines()) == 1


def test_many_copies_are_counted_and_the_first_named(run: Run) -> None:
    rows = "".join(f"train/{number}.png,1,1\n" for number in range(12))
    Path("data/split/copies.csv").write_text(f"sample_id,same,alike\n{rows}")
    Path("a.json").write_bytes(submission())
    lines = run("submit", "a.json").stdout.splitlines()
    assert lines[1] == "a.json: 11 other sample(s) show the same picture and stay:"
    assert lines[-2] == "  and 6 more; --json names all"
    assert len(lines) == 9


def test_where_copies_cannot_be_told_that_is_said(run: Run) -> None:
    Path("data/split/copies.csv").unlink()
    Path("a.json").write_bytes(submission())
    result = run("submit", "a.json")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == (
        "expunge: other samples that show the same picture cannot be told: data/split/copies.csv is missing; "
        "run the stage that writes it: dvc repro split\n"
    )
    (row,) = json.loads(run("submit", "a.json", "--json").stdout)
    assert row["copies"] is None


def test_a_file_that_is_not_there_is_one_line(run: Run) -> None:
    result = run("submit", "nowhere.json")
    assert result.exit_code == Exit.SYSTEM
    assert result.stderr == "expunge: No such file or directory (nowhere.json)\n"


def test_with_a_file_that_is_not_there_the_others_are_not_submitted(run: Run, desk: Desk) -> None:
    Path("good.json").write_bytes(submission())
    assert run("submit", "good.json", "nowhere.json").exit_code == Exit.SYSTEM
    assert desk.requests() == []


def test_the_schema_is_printed_without_a_file(run: Run) -> None:
    schema = json.loads(run("submit", "--schema").stdout)
    assert set(schema["properties"]) == {
        "requester", "received_at", "due_at", "ground", "samples", "near_copies",
    }  # fmt: skip


def test_list_shows_open_requests_and_all_if_asked(run: Run) -> None:
    first = submitted(run)
    second = submitted(run, samples={"index": [1]}, due_at="2026-05-02T00:00:00Z")
    third = submitted(run, ground="why")
    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["request", second, first]
    assert [row["request"] for row in json.loads(run("list", "--all", "--json").stdout)] == [
        second,
        first,
        third,
    ]
    assert "2026-06-01 23:59" in lines[2]


def test_an_empty_list_says_so(run: Run) -> None:
    assert run("list").stdout.startswith("no open requests; --all lists")
    for arguments in (["--all"], ["--requester", "crm:1"]):
        assert run("list", *arguments).stdout == "no requests\n"
    assert json.loads(run("list", "--json").stdout) == []


def test_show_tells_every_event(run: Run) -> None:
    request = submitted(run)
    shown = run("show", request).stdout
    assert "status       validated" in shown
    assert "samples      1" in shown
    assert "1 sample(s), as keyed digests" in shown
    as_json = json.loads(run("show", request, "--json").stdout)
    assert [event["kind"] for event in as_json["events"]] == ["received", "validated"]
    assert as_json["next"] == "it waits for the next batch"


@pytest.mark.parametrize(
    ("command", "status", "held"),
    [
        ("approve", "approved", False),
        ("refuse", "refused", False),
        ("withdraw", "withdrawn", False),
        ("hold", "validated", True),
    ],
)
def test_decisions_are_recorded(run: Run, command: str, status: str, held: bool) -> None:
    request = submitted(run)
    decided = json.loads(run(command, request, "--reason", "as told", "--by", "dpo", "--json").stdout)
    assert (decided["status"], decided["held"]) == (status, held)
    assert decided["events"][-1]["body"] == {"by": "dpo", "reason": "as told"}


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("No username set"), ImportError("pwd")])
def test_without_a_login_name_the_number_of_the_user_decides(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise error

    request = submitted(run)
    monkeypatch.setattr("getpass.getuser", nobody)
    result = run("refuse", request, "-r", "no identity", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["events"][-1]["body"]["by"] == f"uid {os.getuid()}"


def test_a_hold_is_released_and_a_due_date_extended(run: Run) -> None:
    request = submitted(run)
    run("hold", request, "-r", "court")
    assert not json.loads(run("release", request, "-r", "settled", "--json").stdout)["held"]
    extended = json.loads(run("extend", request, "-r", "many", "--json").stdout)
    assert extended["due_at"] == "2026-08-03T23:59:59.999999Z"


def test_what_is_not_allowed_is_one_line_and_changes_nothing(run: Run, desk: Desk) -> None:
    request = submitted(run)
    run("refuse", request, "-r", "no identity")
    before = desk.ledger.head()
    result = run("approve", request)
    assert result.exit_code == Exit.BAD_INPUT
    assert result.stderr == (
        f"expunge: request {request} is refused; 'approved' can happen only to one that is validated\n"
    )
    assert run("show", "nope").stderr.startswith("expunge: request 'nope' is not in the ledger")
    assert run("refuse", request).exit_code == Exit.BAD_INPUT
    assert desk.ledger.head() == before


def test_status_counts_and_fails_when_something_is_overdue(run: Run, clock: Clock) -> None:
    submitted(run)
    late = submitted(run, samples={"index": [1]}, due_at="2026-05-02T00:00:00Z")
    result = run("status", "--no-reconcile")
    assert result.exit_code == 0
    assert result.stdout.startswith("2 open: 0 overdue, 1 at risk, 1 on time\n")
    clock.forward(days=2)
    result = run("status", "--no-reconcile")
    assert result.exit_code == Exit.ATTENTION
    assert result.stdout.startswith("2 open: 1 overdue, 0 at risk, 1 on time\n")
    told = json.loads(run("status", "--no-reconcile", "--json").stdout)
    assert told["counts"] == {"overdue": 1, "at risk": 0, "on time": 1}
    assert told["attention"] == [f"request {late} is overdue since 2026-05-02"]


def test_verify_holds_the_chain_against_anchors(run: Run, desk: Desk) -> None:
    submitted(run)
    head = desk.ledger.head()
    told = f"2 events, unbroken, on 2 anchor(s); head {head}\n"  # that which is given, and the mark
    assert run("verify", "ledger", "--anchor", str(head)).stdout == told
    result = run("verify", "ledger", "--anchor", f"2:{'0' * 64}")
    assert result.exit_code == Exit.NOT_VERIFIED
    assert "two anchors of event 2 contradict each other" in result.stderr
    result = run("verify", "ledger", "--anchor", f"1:{'0' * 64}")
    assert result.exit_code == Exit.NOT_VERIFIED
    assert "event 1 is not the one that was anchored (--anchor)" in result.stderr
    assert run("verify", "ledger", "--anchor", "x").exit_code == Exit.BAD_INPUT


def test_status_asks_for_a_person_from_the_first_minute(run: Run, desk: Desk) -> None:
    request = submitted(run)
    assert run("status", "--no-reconcile").exit_code == 0
    with desk.writing() as writer:
        for fact in (LIFE[0], facts.Failed(batch="b")):
            writer.append(fact, request)
    result = run("status", "--no-reconcile")
    assert result.exit_code == Exit.ATTENTION
    assert f"request {request} failed: expunge show {request} tells why" in result.stdout


def test_standing_holds_are_placed_listed_and_lifted(run: Run) -> None:
    request = submitted(run)
    placed = json.loads(run("hold", "--requester", "crm:4711", "-r", "[court] 7", "--json").stdout)
    assert placed["held"] == [request]
    hold = placed["hold"]
    assert "[court] 7" in run("holds").stdout
    listed = json.loads(run("holds", "--json").stdout)
    assert [(row["hold"], row["of"]) for row in listed] == [
        (hold, "requester crm:4711"),
        (request, f"this request, by {hold}"),
    ]
    refused = run("release", request, "-r", "settled")
    assert refused.exit_code == Exit.BAD_INPUT
    assert f"is held by {hold}; lift that: expunge release {hold}" in refused.stderr
    assert run("release", hold, "-r", "settled").stdout == f"{hold} is lifted\n"
    assert run("holds").stdout == "no holds\n"
    assert not json.loads(run("show", request, "--json").stdout)["held"]


def test_samples_are_held_before_any_request(run: Run) -> None:
    run("hold", "--sample", "train/3.png", "--sample", "train/4.png", "-r", "court")
    assert [row["of"] for row in json.loads(run("holds", "--json").stdout)] == ["2 sample(s)"]
    assert "on legal hold until that is lifted" in run("show", submitted(run)).stdout
    for arguments in (["--requester", "a", "--sample", "b"], [], ["r1", "--sample", "b"]):
        result = run("hold", *arguments, "-r", "court")
        assert result.exit_code == Exit.BAD_INPUT
        assert result.stderr.count("\n") == 1


def test_one_that_is_withdrawn_makes_way_for_the_next(run: Run) -> None:
    first, second = submitted(run), submitted(run)
    assert run("show", second).stdout.splitlines()[1].split() == ["status", "behind"]
    run("withdraw", first, "-r", "asked")
    shown = json.loads(run("show", second, "--json").stdout)
    assert (shown["status"], shown["first"]) == ("validated", None)


def test_the_due_date_of_one_behind_is_shown_of_the_first(run: Run) -> None:
    first = submitted(run)
    submitted(run, due_at="2026-05-03T00:00:00Z")
    assert json.loads(run("show", first, "--json").stdout)["due_at"].startswith("2026-05-03")
    assert json.loads(run("list", "--json").stdout)[0]["due_at"].startswith("2026-05-03")


def test_where_the_data_cannot_be_read_a_request_is_received_and_dated(run: Run, desk: Desk) -> None:
    shutil.rmtree("data/split")
    Path("a.json").write_bytes(submission())
    result = run("submit", "a.json")
    assert result.exit_code == 0
    assert result.stdout.strip().endswith(" received, due 2026-06-01")
    assert "received, to be resolved once the data can be read: " in result.stderr
    status = run("status", "--no-reconcile")
    assert status.exit_code == Exit.ATTENTION
    assert "is received and not resolved" in status.stdout


def test_a_key_is_destroyed_once_its_request_has_ended(run: Run, desk: Desk) -> None:
    request = submitted(run)
    assert run("destroy-key", request, "-r", "asked").exit_code == Exit.BAD_INPUT
    assert desk.keys.exists(request)
    run("withdraw", request, "-r", "asked")
    for _ in range(2):
        assert run("destroy-key", request, "-r", "asked").exit_code == 0
        assert not desk.keys.exists(request)
    assert [event.kind for event in desk.show(request).events].count("unkeyed") == 1


def test_everything_about_a_requester_is_listed(run: Run) -> None:
    mine = submitted(run)
    submitted(run, samples={"index": [1]}, requester="crm:1")
    run("refuse", mine, "-r", "no identity")
    found = json.loads(run("list", "--requester", "crm:4711", "--json").stdout)
    assert [row["request"] for row in found] == [mine]


def test_requests_are_summed_up_and_traced(run: Run, desk: Desk) -> None:
    request = submitted(run)
    with desk.writing() as writer:
        for fact in LIFE:
            writer.append(fact, request)
    told = json.loads(run("report", "--json").stdout)
    assert (told["requests"], told["by status"], told["closed in time"]) == (1, {"closed": 1}, 1)
    steps = json.loads(run("trace", request, "--json").stdout)[request]
    assert [step["event"] for step in steps] == [
        "received", "validated", "batched", "started", "audited", "promoted", "purging", "purged", "closed",
    ]  # fmt: skip
    result = run("trace", request, "--commit", "1234567")
    assert result.exit_code == Exit.BAD_INPUT
    assert "trace what?" in result.stderr


def test_a_table_that_does_not_fit_fails_verification_until_it_is_made_anew(run: Run, desk: Desk) -> None:
    request = submitted(run)
    with closing(sqlite3.connect("data/requests/ledger.db")) as connection:
        connection.execute("UPDATE expunge_standing SET status = 'approved'")
        connection.commit()
    result = run("verify", "ledger")
    assert result.exit_code == Exit.NOT_VERIFIED
    assert f"the table of states does not fit the events of {request}" in result.stderr
    desk.ledger.rebuild_standing()
    assert run("verify", "ledger").exit_code == 0


def test_the_inbox_is_taken(run: Run, catalogue: Catalogue) -> None:
    inbox = Path("data/requests/inbox")
    inbox.mkdir(parents=True)
    (inbox / "a.json").write_bytes(submission())
    os.utime(inbox / "a.json", (1e9, 1e9))
    assert " validated, due 2026-06-01" in run("inbox").stdout
    assert run("inbox").stdout == ""


def test_every_command_explains_itself() -> None:
    told = CliRunner().invoke(cli.app, ["--help"], terminal_width=200).stdout
    assert "Exit status: 0 done; 2 bad input" in told
    for command in COMMANDS:
        assert command.split()[0] in told
        result = CliRunner().invoke(cli.app, [*command.split(), "--help"], terminal_width=200)
        assert result.exit_code == 0
        assert "--json" in result.stdout


def test_the_program_reads_params_and_the_environment(root: Path, tmp_path: Path) -> None:
    shutil.copy(PROJECT / "params.yaml", root)
    Path("a.json").write_bytes(submission())

    def expunge(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment: dict[str, Any] = {**os.environ, "EXPUNGE_KEYS": str(tmp_path / "k"), **variables}
        program = str(Path(sys.executable).with_name("expunge"))
        return subprocess.run(
            [program, *arguments], env=environment, capture_output=True, text=True, check=False, cwd=root
        )

    done = expunge("submit", "a.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.suffix for path in (tmp_path / "k").iterdir()) == [".key", ".mark", ".names"]
    assert (root / "data/requests/ledger.db").exists()
    assert "validated" in expunge("list").stdout
    elsewhere = expunge("list", EXPUNGE_LEDGER=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere.stdout.startswith("no open requests")
    inside = expunge("submit", "a.json", EXPUNGE_KEYS=str(root / "keys"))
    assert inside.returncode == Exit.BAD_INPUT
    assert "lies inside the repository" in inside.stderr
    (root / "params.yaml").unlink()
    assert expunge("list").stderr == "expunge: params.yaml is missing; run from the repository's root\n"


READING = {
    "list", "show", "holds", "status", "subject", "trace", "report", "verify ledger", "verify certificate",
    "verify erasure", "public-key", "purge plan",
}  # fmt: skip
"""Commands that only read the ledger; and those that never write an event to it."""
WITHOUT_EVENT = {"settle", "doctor", "suppression restore", "suppression adopt"}
GIVEN = {"submit": ["a.json"], "rollback": ["1"], "hold": ["--requester", "crm:1"], "release": ["hold-1"]}
"""Arguments that are not a request's id."""


def cli_command() -> Any:
    return typer.main.get_command(cli.app)


def test_every_command_that_writes_refuses_a_ledger_that_is_settled_elsewhere(
    run: Run, desk: Desk, root: Path
) -> None:
    request = submitted(run)
    commands = cli_command().commands
    names = {
        " ".join((name, *more))
        for name, command in commands.items()
        for more in ([(each,) for each in command.commands] if hasattr(command, "commands") else [()])
    }
    assert names >= READING | WITHOUT_EVENT
    subprocess.run(["git", "init", "-q"], check=True)
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    desk.record(facts.Settled(checkout="0" * 32, host="other", commit="f" * 40, by="me"))
    before = desk.ledger.head()
    for name in sorted(names - READING - WITHOUT_EVENT):
        command = functools.reduce(lambda found, part: found.commands[part], name.split(), cli_command())
        options = {option for parameter in command.params for option in parameter.opts}
        positional = [request] if "argument" in {each.param_type_name for each in command.params} else []
        reason = ["--reason", "so"] if "--reason" in options else []
        result = run(*name.split(), *GIVEN.get(name, positional), *reason)
        assert result.exit_code == Exit.BAD_INPUT, (name, result.output)
        assert result.stderr.startswith("expunge: the ledger is that of another project"), name
        assert result.stderr.count("\n") == 1, name
    assert desk.ledger.head() == before
    assert [path.name for path in desk.keys.folder.glob("*.key")] == [f"{request}.key"]


def test_what_shows_others_too_is_told_and_waits_for_a_person(run: Run, desk: Desk) -> None:
    write_subjects(["train/3.png", "train/4.png"], [("p:1",), ("p:1", "p:2")], desk.keys, Path("data/split"))
    Path("a.json").write_bytes(submission(samples={"subject": ["p:1"]}))
    told = run("submit", "a.json").stdout
    request = told.split()[2]
    assert "1 sample(s) show other people, too" in told
    assert f"expunge approve {request}" in told
    shown = run("show", request).stdout
    assert "train/4.png: 2 people" in shown
    assert json.loads(run("show", request, "--json").stdout)["shared_samples"] == {"train/4.png": 2}
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["shared"] == 1
    assert "shared" in run("list").stdout
    assert run("approve", request).exit_code == 0
    assert str(desk.show(request).state.status) == "approved"
    assert "p:1" not in "".join(event.text for event in desk.ledger.events())


def test_copies_that_are_taken_along_are_told(run: Run) -> None:
    Path("data/split/copies.csv").write_text(COPIES)
    Path("a.json").write_bytes(submission(near_copies="include"))
    assert "3 sample(s) that show the same picture are taken along" in run("submit", "a.json").stdout
    Path("b.json").write_bytes(submission(near_copies="include", samples={"id": ["train/5.png"]}))
    (row,) = json.loads(run("submit", "b.json", "--json").stdout)
    assert (row["samples"], row["near_copies"]) == (4, 3)
