from __future__ import annotations

import json
from zoneinfo import ZoneInfo

import pytest
import typer

from tasks import output
from tasks.core.errors import ExpungeError
from tasks.output import Exit, errors, fail, print_json, print_rows, want_json


@pytest.fixture(autouse=True)
def text() -> None:
    want_json(False)


def test_rows_are_shown_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"request": "r1", "reason": "[bold]court[/] :smile: [/no]", "at": None, "n": 7}
    print_rows([row], ("request", "reason", "at", "n"), "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["request", "reason", "at", "n"]
    assert "[bold]court[/] :smile: [/no]" in lines[1]
    assert lines[1].split()[-1] == "7"


def test_a_time_is_shown_to_the_minute_and_a_column_without_its_suffix(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_rows([{"due_at": "2026-06-01T09:30:12.000000Z"}], ("due_at",), "none")
    assert capsys.readouterr().out.split("\n")[:2] == ["due             ", "2026-06-01 09:30"]
    for reason in ("Z like Zoe, 10 T Z", "2026-06-01T09:30Z", "2026-06-31T09:30:12Z"):
        print_rows([{"reason": reason}], ("reason",), "none")
        assert reason in capsys.readouterr().out


def test_a_time_is_that_of_the_zone(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"due_at": "2026-06-02T03:59:59.999999Z"}
    print_rows([row], ("due_at",), "none", ZoneInfo("America/New_York"))
    assert "2026-06-01 23:59" in capsys.readouterr().out


def test_no_rows_are_said_or_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], ("request",), "no requests")
    print_rows([], ("request",), "")
    assert capsys.readouterr().out == "no requests\n"


def test_json_is_utf8_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"reason": "ä\udcff", "n": [1, None]})
    assert json.loads(capsys.readouterr().out) == {"reason": "ä?", "n": [1, None]}


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ExpungeError("no\n  such thing"), Exit.BAD_INPUT, "no such thing"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), Exit.SYSTEM,
         "No such file or directory (a.json)"),
        (OSError("odd"), Exit.SYSTEM, "odd"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_is_one_line_and_json_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], error: Exception, status: Exit, line: str, as_json: bool
) -> None:
    want_json(as_json)
    with pytest.raises(typer.Exit) as caught, errors():
        raise error
    assert caught.value.exit_code == status
    told = capsys.readouterr()
    assert told.err == f"expunge: {line}\n"
    assert (json.loads(told.out) if as_json else told.out) == (
        {"error": line, "exit": int(status)} if as_json else ""
    )


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), errors():
        raise ZeroDivisionError


def test_a_command_after_one_that_wanted_json_prints_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert want_json(True)
    assert not want_json(False)
    with pytest.raises(typer.Exit):
        fail("no", Exit.NOT_VERIFIED)
    assert capsys.readouterr().out == ""


def test_exit_statuses_are_those_of_the_help() -> None:
    from tasks.cli import app

    told = app.info.epilog or ""
    assert all(f"{int(status)} " in told for status in Exit)
    assert {status.name: int(status) for status in output.Exit} == {
        "DEFECT": 1, "BAD_INPUT": 2, "ATTENTION": 3, "NOT_VERIFIED": 4, "SYSTEM": 74,
    }  # fmt: skip
