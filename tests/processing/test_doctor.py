from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.core.params import Params, load
from tasks.processing import doctor
from tasks.processing.doctor import Finding, examine
from tasks.requests.catalogue import Catalogue
from tasks.requests.desk import Desk
from tests.requests.conftest import Clock, catalogue, clock, desk, root, submit
from tests.requests.test_standing import changed

__all__ = ["catalogue", "clock", "desk", "root"]

PROJECT = Path(__file__).parents[2]
PARTS = [
    "ledger", "table of states", "clock", "keys of requests", "folder of keys", "signing key",
    "checkout", "Git",
    "list of what was erased", "data/base", "alias production", "DVC cache", "Prefect", "disk",
]  # fmt: skip


@pytest.fixture
def params(root: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project under Git and DVC, in which nothing needs care."""
    shutil.copy(PROJECT / "params.yaml", root)
    (root / "data/requests").mkdir()
    shutil.copy(PROJECT / "data/requests/erased.txt", root / "data/requests")
    (root / ".gitignore").write_text("/data/split\n/data/requests/*\n!/data/requests/erased.txt\n/.expunge\n")
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("")
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    monkeypatch.setenv("EXPUNGE_TRACKING", "off")
    monkeypatch.setattr(doctor, "ROOM", 1)
    return load()


def found(desk: Desk, params: Params) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(desk, params, Path.cwd(), {})}


def test_every_part_is_examined_and_is_well(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    assert [finding.part for finding in examine(desk, params, Path.cwd(), {})] == PARTS
    submit(desk, catalogue)
    findings = found(desk, params)
    assert {part for part, finding in findings.items() if finding.state == "needs care"} == set()
    assert findings["ledger"].found == "2 events, unbroken, on 0 anchor(s) in Git"
    assert findings["keys of requests"].found == "1 open request(s) have theirs"
    assert findings["data/base"].state == "not used"


def needing(desk: Desk, params: Params, part: str) -> Finding:
    """The finding of a part, which alone needs care."""
    findings = found(desk, params)
    assert [each.part for each in findings.values() if each.state == "needs care"] == [part]
    return findings[part]


def test_a_broken_chain_needs_care(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    submit(desk, catalogue)
    changed("sqlite:///data/requests/ledger.db", "DROP TRIGGER expunge_no_UPDATE")
    changed("sqlite:///data/requests/ledger.db", "UPDATE expunge_events SET at = '2026' WHERE seq = 2")
    assert "event 2 was changed" in needing(desk, params, "ledger").found


def test_an_end_that_was_cut_off_needs_care(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    from tests.requests.test_record import cut

    submit(desk, catalogue)
    submit(desk, catalogue, samples={"index": [5]})
    cut(3)
    assert "the ledger ends at 3" in needing(desk, params, "ledger").found


def test_a_table_that_does_not_fit_needs_care_and_is_made_anew(
    desk: Desk, catalogue: Catalogue, params: Params
) -> None:
    request = submit(desk, catalogue).id
    changed("sqlite:///data/requests/ledger.db", "UPDATE expunge_standing SET status = 'approved'")
    finding = needing(desk, params, "table of states")
    assert (request in finding.found, finding.do) == (True, "expunge doctor --rebuild")
    desk.ledger.rebuild_standing()
    assert found(desk, params)["table of states"].state == "well"


def test_a_clock_that_was_set_back_needs_care(
    desk: Desk, catalogue: Catalogue, params: Params, clock: Clock
) -> None:
    submit(desk, catalogue)
    clock.forward(hours=-1)
    assert "the last event is of 2026-05-01T12:00Z" in needing(desk, params, "clock").found


def test_a_lost_key_needs_care(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    request = submit(desk, catalogue).id
    submit(desk, catalogue, samples={"index": [5]})
    desk.keys.destroy(request)
    assert (
        needing(desk, params, "keys of requests").found == f"1 of 2 open requests have lost theirs: {request}"
    )


def test_keys_that_others_can_read_need_care(desk: Desk, catalogue: Catalogue, params: Params) -> None:
    submit(desk, catalogue)
    desk.keys.folder.chmod(0o750)
    assert needing(desk, params, "folder of keys").do == f"chmod 700 {desk.keys.folder}"


def test_changes_that_are_not_committed_need_care(desk: Desk, params: Params) -> None:
    with Path("params.yaml").open("a") as file:
        file.write("# mine\n")
    assert "params.yaml differs from the last commit" in needing(desk, params, "Git").found


def test_a_lost_list_needs_care(desk: Desk, params: Params) -> None:
    Path("data/requests/erased.txt").unlink()
    assert "erased.txt" in needing(desk, params, "list of what was erased").found


def test_a_full_disk_needs_care(desk: Desk, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ROOM", 2**70)
    assert "GiB free" in needing(desk, params, "disk").found


def test_a_ledger_that_cannot_be_read_does_not_keep_the_rest_from_being_examined(
    desk: Desk, params: Params
) -> None:
    Path("data/requests/ledger.db").write_bytes(b"no database at all" * 100)
    findings = found(desk, params)
    assert list(findings) == PARTS
    assert "file is not a database" in findings["ledger"].found
    assert findings["Git"].state == "well"


def test_a_remote_that_cannot_be_searched_is_named(desk: Desk, params: Params, tmp_path: Path) -> None:
    Path(".dvc/config").write_text(f"['remote \"store\"']\n    url = {tmp_path}/store\n")
    findings = list(examine(desk, params, Path.cwd(), {}))
    assert [finding.part for finding in findings[: len(PARTS)]] == PARTS
    (remote,) = findings[len(PARTS) :]
    assert "store" in remote.part
