from __future__ import annotations

import pytest

from tasks.requests import pending
from tests.requests.conftest import root

__all__ = ["root"]

pytestmark = pytest.mark.usefixtures("root")


def test_what_is_kept_waits_for_its_owner_alone_until_it_is_dropped() -> None:
    assert list(pending.waiting()) == []
    pending.keep("20260501-00000002", "a.CSV", b"two")
    pending.keep("20260501-00000001", "b.c.json", b"one")
    waiting = dict(pending.waiting())
    assert list(waiting) == ["20260501-00000001", "20260501-00000002"]
    assert [path.name for path in waiting.values()] == ["20260501-00000001.json", "20260501-00000002.csv"]
    assert [path.read_bytes() for path in waiting.values()] == [b"one", b"two"]
    assert {path.stat().st_mode & 0o777 for path in waiting.values()} == {0o600}
    assert pending.is_kept("20260501-00000001")
    pending.drop("20260501-00000001")
    assert not pending.is_kept("20260501-00000001")
    pending.drop("20260501-00000001")
    assert list(dict(pending.waiting())) == ["20260501-00000002"]


def test_what_a_killed_writer_left_half_written_does_not_wait() -> None:
    pending.keep("20260501-00000001", "a.json", b"one")
    (pending.PENDING / ".20260501-00000002.json.x1.part").write_bytes(b"ha")
    assert [name for name, _ in pending.waiting()] == ["20260501-00000001"]


def test_git_ignores_what_waits() -> None:
    from pathlib import Path

    ignored = (Path(__file__).parents[2] / "data/requests/.gitignore").read_text().split()
    assert pending.PENDING.parent.as_posix() == "data/requests"
    assert ignored[0] == "*"
    assert f"!{pending.PENDING.name}/" not in ignored
