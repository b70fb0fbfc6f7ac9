"""A ``dvc.lock`` that a kill has left half-written is made whole; a merge is left to whoever makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ExpungeError
from tasks.processing import lockfile
from tests.processing.conftest import Checkout, names
from tests.processing.quick import kill_at, quick

__all__ = ["quick"]


def cut_short(whole: bytes) -> bytes:
    """As far as DVC had written it: no lock file that DVC would take."""
    return whole[: whole.rindex(b"- path:") + len(b"- pat")]


@pytest.mark.parametrize("half", [b"", b"schema", b"\0\xff"])
def test_a_damaged_lock_file_is_made_whole_and_kept_aside(checkout: Checkout, half: bytes) -> None:
    path = Path("dvc.lock")
    whole = path.read_bytes()
    for damaged in (half, cut_short(whole)):
        path.write_bytes(damaged)
        assert lockfile.mend(checkout.root)
        assert path.read_bytes() == whole
        assert Path(".expunge/dvc.lock.damaged").read_bytes() == damaged
    assert not lockfile.mend(checkout.root)


def test_a_sound_one_that_was_not_committed_stays(checkout: Checkout) -> None:
    path = Path("dvc.lock")
    changed = path.read_text() + "\n# mine\n"
    path.write_text(changed)
    assert not lockfile.mend(checkout.root)
    assert path.read_text() == changed


def test_a_batch_goes_on_after_a_kill_within_dvc(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1))
    kill_at(checkout, monkeypatch, "_purge")
    path = Path("dvc.lock")
    path.write_bytes(cut_short(path.read_bytes()))
    assert checkout.process(quick) == []
    assert checkout.status(request.id) == "closed"
    assert any("dvc.lock was damaged" in line for line in checkout.logged)


def test_a_merge_that_is_not_finished_is_refused_with_what_to_do(
    checkout: Checkout, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = checkout.submit(*names(0, 1))
    kill_at(checkout, monkeypatch, "_decide")
    path = Path("dvc.lock")
    merging = path.read_bytes() + b"<<<<<<< ours\n=======\n>>>>>>> theirs\n"
    path.write_bytes(merging)
    with pytest.raises(ExpungeError, match=r"dvc\.lock.*git checkout -- dvc\.lock"):
        checkout.process(quick)
    assert path.read_bytes() == merging
    assert checkout.status(request.id) == "audited"
