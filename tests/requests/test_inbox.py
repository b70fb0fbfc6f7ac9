from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.core.files import only_writer
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tasks.requests.inbox import CLAIMED, INBOX, REJECTED, take, waits
from tasks.requests.parsing import Parsed, parse
from tests.requests.conftest import submission


def drop(name: str, content: bytes) -> Path:
    INBOX.mkdir(parents=True, exist_ok=True)
    path = INBOX / name
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


def taken(desk: Desk, catalogue: Catalogue) -> dict[str, str]:
    """What became of each file: its request's status, or the problem."""
    return {
        name: receipt if isinstance(receipt, str) else str(receipt.request.state.status)
        for name, receipt in take(desk, catalogue)
    }


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_files_are_taken_and_leave_nothing_but_the_ledgers_word(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", submission())
    drop("b.csv", b"requester,received_at,ground,kind,value\nx,2026-05-01T09:30Z,objection,index,4\n")
    drop("c.json", submission())
    assert taken(desk, catalogue) == {"a.json": "validated", "b.csv": "validated", "c.json": "behind"}
    assert files(INBOX) == files(CLAIMED) == []
    assert not REJECTED.exists()
    assert [request.events[0].raw["channel"] for request in desk.requests()] == ["inbox"] * 3
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


def good(number: int) -> bytes:
    return submission(samples={"index": [number]})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((letter * (length - 5) + ".json", None) for letter in "a" for length in (200, 220, 237, 245, 255)),
        ("é" * 125 + ".json", None),
        ("😀" * 62 + ".json", None),
        ("a." + "b" * 245 + ".json", None),
        (os.fsdecode(b"caf\xe9.json"), "caf\\xe9.json"),
        (os.fsdecode(b"\xff" * 200 + b".json"), "\\xff" * 200 + ".json"),
        ("two\nlines.json", "two\\nlines.json"),
        ("bell\x07.json", "bell\\x07.json"),
        ("20260501-0000000a.json", None),
        ("erased.json", None),
        ("a b\u2028c.json", "a b\\u2028c.json"),
    ],
)
@pytest.mark.parametrize("content", [good(5), b"{"], ids=["good", "bad"])
def test_any_name_is_taken(
    desk: Desk, catalogue: Catalogue, name: str, shown: str | None, content: bytes
) -> None:
    drop("0.json", good(3))
    drop(name, content)
    drop("z.json", good(4))
    status = "validated" if content == good(5) else "rejected"
    outcomes = taken(desk, catalogue)
    assert outcomes == {"0.json": "validated", shown or name: status, "z.json": "validated"}
    json.dumps(outcomes).encode()
    "".join(outcomes).encode()
    assert files(INBOX) == files(CLAIMED) == []
    if status == "rejected":
        moved = files(REJECTED)
        assert [path.endswith(ending) for path, ending in zip(moved, (".json", ".txt"), strict=True)] == [
            True
        ] * 2
        assert "was rejected as request" in (REJECTED / moved[1]).read_text()


@pytest.mark.parametrize(
    "change", [{"received_at": "9999-12-31T23:59:59Z"}, {"due_at": "9999-12-31T23:59:59Z"},
               {"received_at": "0226-01-01T00:00:00Z"}],
)  # fmt: skip
def test_a_year_that_cannot_be_meant_stops_no_other_file(
    desk: Desk, catalogue: Catalogue, change: dict[str, str]
) -> None:
    drop("a.json", submission(**change))
    drop("b.json", good(4))
    assert taken(desk, catalogue) == {"a.json": "rejected", "b.json": "validated"}


def test_what_is_in_the_way_among_the_claimed_is_told_and_stops_nothing(
    desk: Desk, catalogue: Catalogue, tmp_path: Path
) -> None:
    CLAIMED.mkdir(parents=True)
    (CLAIMED / "20260501-0000000a.folder").mkdir()
    (CLAIMED / "stray.json").write_bytes(good(1))
    (CLAIMED / ".hidden").write_bytes(b"x")
    (CLAIMED / "20260501-0000000b.link.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(CLAIMED / "20260501-0000000c.pipe.json")
    (CLAIMED / os.fsdecode(b"20260501-0000000d.\xff.json")).write_bytes(good(2))
    drop("a.json", good(4))
    for first in (True, False):
        outcomes = taken(desk, catalogue)
        assert "is no file; take it away" in outcomes["folder"]
        assert "is no file" in outcomes["pipe.json"]
        assert "does not begin with a request's id" in outcomes["stray.json"]
        if first:
            assert outcomes["link.json"] == "rejected"
            assert outcomes["\\xff.json"] == outcomes["a.json"] == "validated"
    assert waits()


@pytest.mark.parametrize(
    "name",
    [
        "erased.json", "erased.key", "erased", "batch-20260501-0000000a.json",
        "hold-20260501-0000000a.json", "..json",
    ],
)  # fmt: skip
def test_no_name_among_the_claimed_reaches_another_key(desk: Desk, catalogue: Catalogue, name: str) -> None:
    CLAIMED.mkdir(parents=True)
    key = desk.keys.create("erased")
    for content in (submission(), submission(), b"{"):
        (CLAIMED / name).write_bytes(content)
        taken(desk, catalogue)
    assert desk.keys.load("erased") == key
    assert desk.requests() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_stays_and_is_told_every_time(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", good(3)).chmod(0)
    drop("b.json", good(4))
    assert taken(desk, catalogue) == {"a.json": "cannot be taken: Permission denied", "b.json": "validated"}
    assert taken(desk, catalogue) == {"a.json": "cannot be taken: Permission denied"}
    next(path for path in CLAIMED.iterdir()).chmod(0o600)
    assert taken(desk, catalogue) == {"a.json": "validated"}


def test_a_file_that_disappears_meanwhile_stops_no_other(desk: Desk, catalogue: Catalogue) -> None:
    for name, number in (("a.json", 3), ("b.json", 4), ("c.json", 5)):
        drop(name, good(number))
    outcomes = take(desk, catalogue)
    assert next(outcomes)[0] == "a.json"
    (INBOX / "b.json").unlink()
    (INBOX / "c.json").unlink()
    (INBOX / "c.json").symlink_to("nowhere")
    os.utime(INBOX / "c.json", (1e9, 1e9), follow_symlinks=False)
    assert [name for name, _ in outcomes] == ["c.json"]


def test_where_nothing_can_be_put_aside_the_others_are_taken(desk: Desk, catalogue: Catalogue) -> None:
    drop("a.json", b"{")
    drop("b.json", good(4))
    REJECTED.write_text("in the way")
    assert taken(desk, catalogue) == {"a.json": "cannot be taken: File exists", "b.json": "validated"}
    REJECTED.unlink()
    assert taken(desk, catalogue) == {"a.json": "rejected"}
    assert len(desk.requests()) == 2


def test_a_damaged_key_stops_none_but_its_own_file(desk: Desk, catalogue: Catalogue) -> None:
    CLAIMED.mkdir(parents=True)
    drop("a.json", good(3)).rename(CLAIMED / "20260501-0000000a.a.json")
    desk.keys.create("20260501-0000000a")
    (desk.keys.folder / "20260501-0000000a.key").write_bytes(b"short")
    drop("b.json", good(4))
    outcomes = taken(desk, catalogue)
    assert "is damaged" in outcomes["a.json"]
    assert outcomes["b.json"] == "validated"


def test_a_defect_stops_no_other_file_and_its_text_is_not_told(
    desk: Desk, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(content: bytes, name: str) -> Parsed:
        if b"[3]" in content:
            raise ZeroDivisionError(f"Jane Doe {content!r}")
        return parse(content, name)

    monkeypatch.setattr("tasks.requests.intake.parse", broken)
    drop("a.json", good(3))
    drop("b.json", good(4))
    expected = {"a.json": "cannot be taken: ZeroDivisionError, a defect", "b.json": "validated"}
    assert taken(desk, catalogue) == expected


def test_a_hidden_file_is_nothing_to_wait_for(desk: Desk, catalogue: Catalogue) -> None:
    assert not waits()
    drop(".gitignore", b"*")
    assert not waits()
    drop("a.json", good(3))
    assert waits()
