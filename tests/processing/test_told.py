"""What a run refuses before it begins, and what it tells: texts that may name somebody only to a terminal."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError, PlainError
from tasks.erasure.purge import Purge
from tasks.processing import processor as processing
from tasks.processing import steplog
from tasks.processing.repository import Repository
from tasks.requests import events as facts
from tasks.requests.inbox import CLAIMED, INBOX
from tasks.requests.record import Record
from tests.processing.conftest import Checkout, names
from tests.requests.conftest import submission

NAME = "Jane Doe 4711"


def dropped(content: bytes, folder: Path = INBOX) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.json"
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def processed(checkout: Checkout) -> tuple[list[str], list[str]]:
    """What a run tells every server, and what only a terminal."""
    processor = checkout.processor(lambda *_: "no stage")
    apart: list[str] = []
    processor.tell = apart.append
    checkout.logged.clear()
    problems = processor.process()
    return [*problems, *checkout.logged], apart


def edit(checkout: Checkout) -> None:
    checkout.submit(*names(0, 1))
    with closing(sqlite3.connect("data/requests/ledger.db")) as database:
        database.execute("DROP TRIGGER expunge_no_UPDATE")
        database.execute("UPDATE expunge_events SET at = '2026-05-02' WHERE seq = 1")
        database.commit()


def move(checkout: Checkout) -> None:
    commit = "f" * 40
    checkout.desk.record(facts.Settled(checkout="0" * 32, host="other", commit=commit, by="me"))


@pytest.mark.parametrize(
    ("harm", "message"), [(edit, "event 1 was changed"), (move, "the ledger is that of another project")]
)
def test_nothing_is_taken_in_by_a_ledger_that_is_refused(
    checkout: Checkout, harm: Callable[[Checkout], None], message: str
) -> None:
    harm(checkout)
    path, head = dropped(submission(samples={"id": names(0, 2)})), checkout.desk.ledger.head()
    with pytest.raises(PlainError, match=message):
        processed(checkout)
    assert path.exists()
    assert checkout.desk.ledger.head() == head


def test_an_idle_run_does_not_read_the_whole_ledger(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1))
    checkout.desk.decide(facts.Refused(by="me", reason="a mistake"), request.id)
    whole: list[str] = []
    monkeypatch.setattr(Record, "check", lambda *_: whole.append("read"))
    assert processed(checkout) == ([], [])
    assert whole == []
    dropped(submission(ground="why"))
    processed(checkout)
    assert whole == ["read"]


def test_a_file_that_cannot_be_taken_is_counted_and_named_to_a_terminal_alone(checkout: Checkout) -> None:
    dropped(submission(), CLAIMED)
    told, apart = processed(checkout)
    assert told == ["inbox: 1 file(s) can neither be taken nor rejected; expunge inbox names them"]
    assert [line for line in apart if NAME in line]


def test_data_that_cannot_be_read_are_not_quoted(checkout: Checkout) -> None:
    path = Path("data/split/samples.csv")
    path.unlink()  # a link to DVC's cache
    path.write_text(f"sample_id,source,label,part\n{NAME},a.png,0,train\n{NAME},b.png,0,train\n")
    dropped(submission())
    told, apart = processed(checkout)
    assert told[0] == (
        "requests are received and wait to be resolved: data/split cannot be read; make it again: "
        "dvc repro split"
    )
    assert not [line for line in told if NAME in line]
    assert [line for line in apart if NAME in line]


def refusing(*_: Any, **__: Any) -> Any:
    raise ExpungeError(f"data/images/{NAME}.png is damaged")


def saying(*_: Any) -> str:
    return f"Git tracks {NAME}.png"


@pytest.mark.parametrize(
    ("where", "what", "instead", "problem"),
    [
        (
            Purge,
            "delete_flow_runs_of_duplicates",
            refusing,
            "what Prefect keeps of duplicates is not deleted (input)",
        ),
        (Repository, "commit", refusing, "the end of the ledger is not anchored in Git (input)"),
        (processing, "why_not_in_git", saying, "the next batch waits (input)"),
        (processing, "search_again", refusing, "stores that were left open could not be searched (input)"),
    ],
)
def test_the_text_of_an_error_stays_in_this_checkout(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch, where: Any, what: str, instead: Any, problem: str
) -> None:
    request = checkout.submit(*names(0, 1)).id
    if what != "why_not_in_git":
        checkout.set(batch_size=100)  # so that nothing is begun
    if what == "search_again":
        monkeypatch.setattr(Purge, "open_requests", lambda _: [request])
    monkeypatch.setattr(where, what, instead)
    told, apart = processed(checkout)
    assert [line for line in told if line == f"{problem}; .expunge/log/process.log tells why"]
    assert not [line for line in told if NAME in line]
    assert [line for line in apart if NAME in line]
    assert NAME in steplog.path_of("process").read_text()
