from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.inbox import CLAIMED, INBOX, REJECTED, take
from tests.requests.conftest import submission


def drop(name: str, content: bytes) -> Path:
    INBOX.mkdir(parents=True, exist_ok=True)
    path = INBOX / name
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def taken(desk: Desk, catalogue: Catalogue) -> dict[str, str]:
    return {name: str(receipt.request.state.status) for name, receipt in take(desk, catalogue)}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_files_are_taken_and_leave_nothing_but_the_ledgers_word(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", submission())
    drop("b.csv", b"requester,received_at,ground,kind,value\nx,2026-05-01T09:30Z,objection,index,4\n")
    drop("c.json", submission())
    assert taken(desk, catalogue) == {"a.json": "validated", "b.csv": "validated", "c.json": "duplicate"}
    assert files(INBOX) == files(CLAIMED) == []
    assert not REJECTED.exists()
    assert {request.events[0].body["channel"] for request in desk.requests()} == {"inbox"}
    assert taken(desk, catalogue) == {}


def test_a_bad_file_is_moved_aside_with_the_reasons(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", submission(ground="why"))
    drop("b.xlsx", b"PK")
    assert taken(desk, catalogue) == {"a.json": "rejected", "b.xlsx": "rejected"}
    assert files(INBOX) == files(CLAIMED) == []
    first, second = (request.id for request in desk.requests())
    assert files(REJECTED) == sorted(
        [f"{first}.a.json", f"{first}.a.json.txt", f"{second}.b.xlsx", f"{second}.b.xlsx.txt"]
    )
    told = (REJECTED / f"{first}.a.json.txt").read_text()
    assert told.startswith(f"a.json was rejected as request {first}:\n")
    assert "ground 'why': must be one of" in told


def test_what_is_hidden_a_folder_or_still_being_written_stays(desk: Desk, catalogue: Catalogue) -> None:
    drop(".a.json.part", submission())
    (INBOX / "folder.json").mkdir()
    drop("b.json", submission()[:20])
    os.utime(INBOX / "b.json", (time.time(), time.time()))
    assert taken(desk, catalogue) == {}
    assert files(INBOX) == ["b.json", "folder.json"]


def test_a_link_is_not_followed(desk: Desk, catalogue: Catalogue, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_bytes(submission())
    INBOX.mkdir(parents=True)
    (INBOX / "a.json").symlink_to(tmp_path / "outside.json")
    os.utime(INBOX / "a.json", (1e9, 1e9), follow_symlinks=False)
    assert taken(desk, catalogue) == {"a.json": "rejected"}
    assert (tmp_path / "outside.json").read_bytes() == submission()


@pytest.mark.parametrize("recorded", [False, True])
def test_a_kill_after_the_claim_is_made_good(desk: Desk, catalogue: Catalogue, recorded: bool) -> None:
    CLAIMED.mkdir(parents=True)
    drop("a.json", submission()).rename(CLAIMED / "20260501-0000000a.a.json")
    if recorded:
        desk.submit(submission(), "a.json", catalogue, channel="inbox", request="20260501-0000000a")
    assert taken(desk, catalogue) == {"a.json": "validated"}
    assert [request.id for request in desk.requests()] == ["20260501-0000000a"]
    assert len(desk.ledger.events()) == 2
    assert files(CLAIMED) == []


def test_a_kill_after_a_rejection_is_made_good(desk: Desk, catalogue: Catalogue) -> None:
    CLAIMED.mkdir(parents=True)
    drop("a.json", b"{").rename(CLAIMED / "20260501-0000000a.a.json")
    desk.submit(b"{", "a.json", catalogue, channel="inbox", request="20260501-0000000a")
    assert taken(desk, catalogue) == {"a.json": "rejected"}
    assert len(desk.ledger.events()) == 2
    assert files(REJECTED) == ["20260501-0000000a.a.json", "20260501-0000000a.a.json.txt"]
    assert "no JSON" in (REJECTED / "20260501-0000000a.a.json.txt").read_text()


def test_an_error_of_the_ledger_loses_no_file(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", submission())
    broken = Desk(
        type(desk.ledger)("postgresql+psycopg://u@127.0.0.1:1/x"), desk.keys, desk.settings, desk.clock
    )
    with pytest.raises(ExpungeError):
        taken(broken, catalogue)
    assert len(files(CLAIMED)) == 1
    assert taken(desk, catalogue) == {"a.json": "validated"}


def test_a_second_process_is_kept_out(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", submission())
    with only_writer(INBOX), pytest.raises(ExpungeError, match="is being written by process"):
        taken(desk, catalogue)
    assert files(INBOX) == ["a.json"]


def test_a_name_with_dots_keeps_them(desk: Desk, catalogue: Catalogue) -> None:
    drop("request.2026.05.json", submission())
    assert taken(desk, catalogue) == {"request.2026.05.json": "validated"}
