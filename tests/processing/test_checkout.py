from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.core.errors import ExpungeError
from tasks.processing import checkout
from tasks.requests import events as facts
from tasks.requests.commits import LEDGER
from tasks.requests.desk import Desk
from tests.requests.conftest import clock, desk, root

__all__ = ["clock", "desk", "root"]


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def project(root: Path) -> Path:
    git(root, "init", "--quiet")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "first")
    return root


def test_a_checkout_has_a_name_of_its_own_that_lasts(project: Path) -> None:
    name = checkout.name_of(project)
    assert checkout.name_of(project) == name
    assert len(name) == 32
    assert str(project) not in (project / checkout.NAME).read_text()


def test_a_copy_elsewhere_has_another_name(project: Path, tmp_path: Path) -> None:
    name = checkout.name_of(project)
    copy = shutil.copytree(project, tmp_path / "copy")
    assert checkout.name_of(copy) != name
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(project), str(clone))
    assert checkout.name_of(clone) not in {name, checkout.name_of(copy)}


def test_the_first_process_settles_and_the_next_finds_it(desk: Desk, project: Path) -> None:
    assert checkout.settled(desk) is None
    assert checkout.why_elsewhere(desk, project) is None
    checkout.ensure(desk, project, "process-requests")
    settled = checkout.settled(desk)
    assert settled is not None
    assert (settled.checkout, settled.commit, settled.by) == (
        checkout.name_of(project), git(project, "rev-parse", "HEAD"), "process-requests",
    )  # fmt: skip
    checkout.ensure(desk, project, "process-requests")
    assert len(desk.ledger.events(kinds=(facts.Settled.kind,))) == 1


def test_a_second_checkout_of_the_project_is_refused_until_it_is_moved(
    desk: Desk, project: Path, tmp_path: Path
) -> None:
    checkout.ensure(desk, project, "me")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(project), str(clone))
    with pytest.raises(ExpungeError, match=r"are carried out in another checkout, on .*expunge settle"):
        checkout.ensure(desk, clone, "me")
    checkout.settle(desk, clone, by="me", reason="the old machine is gone")
    checkout.ensure(desk, clone, "me")
    assert checkout.why_elsewhere(desk, project) is not None
    assert [event.fact.told() for event in desk.ledger.events(kinds=("settled",))][-1].startswith("checkout ")


def test_a_ledger_of_another_project_is_told_as_such(desk: Desk, project: Path, tmp_path: Path) -> None:
    checkout.ensure(desk, project, "me")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "another")
    why = checkout.why_elsewhere(desk, other)
    assert why is not None
    commit = git(project, "rev-parse", "HEAD")
    assert why.startswith(
        f"the ledger is that of another project, or the history was rewritten since: commit {commit[:10]}"
    )


def anchored(desk: Desk, project: Path) -> None:
    """Some events, whose end a commit of Git says as processing does, and another event."""
    checkout.ensure(desk, project, "me")
    message = f"Record of requests\n\n{LEDGER}: {desk.ledger.head()}"
    git(project, "commit", "--quiet", "--allow-empty", "--message", message)
    desk.record(facts.Settled(checkout=checkout.name_of(project), host="here", by="me"))


def test_nothing_is_written_to_a_new_ledger_in_the_place_of_one_that_is_lost(
    desk: Desk, project: Path
) -> None:
    assert checkout.why_not_the_ledger(desk, project) is None
    anchored(desk, project)
    assert checkout.why_not_the_ledger(desk, project) is None
    checkout.refuse_elsewhere(desk, project)
    Path("data/requests/ledger.db").unlink()
    with pytest.raises(
        ExpungeError, match=r"^the ledger is empty, and commit [0-9a-f]{12} is of one with 1 "
    ):
        checkout.refuse_elsewhere(desk, project)
    assert not Path("data/requests/ledger.db").exists()


def test_nothing_is_written_to_a_ledger_of_an_older_backup(desk: Desk, project: Path) -> None:
    checkout.ensure(desk, project, "me")
    backup = Path("data/requests/ledger.db").read_bytes()
    desk.record(facts.Settled(checkout=checkout.name_of(project), host="here", by="me"))
    Path("data/requests/ledger.db").write_bytes(backup)
    with pytest.raises(ExpungeError, match=r"^the ledger ends at event 1, and the mark .* is of one with 2 "):
        checkout.refuse_elsewhere(desk, project)


def test_another_ledger_than_that_of_the_commits_is_told_beside_its_own_mark(
    desk: Desk, project: Path
) -> None:
    anchored(desk, project)
    Path("data/requests/ledger.db").unlink()
    for _ in range(3):
        desk.record(facts.Settled(checkout=checkout.name_of(project), host="here", by="me"))
    why = checkout.why_not_the_ledger(desk, project, history=True)
    assert why is not None
    assert why.startswith("the ledger is another one than that of commit ")


def test_a_name_that_was_lost_is_another_checkout(desk: Desk, project: Path) -> None:
    checkout.ensure(desk, project, "me")
    (project / checkout.NAME).unlink()
    assert checkout.why_elsewhere(desk, project) is not None


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"short\n"])
def test_a_damaged_name_is_one_line(desk: Desk, project: Path, content: bytes) -> None:
    checkout.ensure(desk, project, "me")
    (project / checkout.NAME).write_bytes(content)
    with pytest.raises(ExpungeError, match=r"checkout is damaged; delete it, then: expunge settle --reason"):
        checkout.why_elsewhere(desk, project)


def test_outside_git_it_settles_all_the_same(desk: Desk, root: Path) -> None:
    checkout.ensure(desk, root, "me")
    settled = checkout.settled(desk)
    assert settled is not None
    assert settled.commit is None
    assert checkout.why_elsewhere(desk, root) is None
