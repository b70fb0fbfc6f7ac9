"""What the record costs once ten thousand requests are closed, in time of the processor."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.requests.desk import Desk
from tasks.requests.keys import KeyStore
from tasks.requests.ledger import Ledger
from tasks.requests.production import in_production
from tasks.requests.settings import Settings
from tests.requests.conftest import catalogue, clock, root, submit
from tests.requests.filling import closed, write

__all__ = ["catalogue", "clock", "root"]

COUNT = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("full")
    (folder / "project").mkdir()
    url = f"sqlite:///{folder}/ledger.db"
    desk = Desk(Ledger(url), KeyStore(folder / "keys", folder / "project"), Settings())
    write(desk.ledger, url, closed(desk, COUNT, START), START)
    desk.ledger.rebuild_standing()
    return desk


def seconds(function: Callable[[], Any]) -> float:
    """The least of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return min(taken)


def test_what_is_asked_every_minute_takes_milliseconds(full: Desk) -> None:
    assert full.ledger.head().seq == 92_500
    assert seconds(lambda: full.rows(only_open=True)) < 0.05
    assert seconds(full.ready) < 0.05
    assert seconds(lambda: in_production(full.ledger)) < 0.05
    assert seconds(full.holds) < 0.05
    assert seconds(lambda: full.show("20260101-00000007")) < 0.05


def test_a_submission_does_not_read_the_whole_ledger(full: Desk, root: Path, catalogue: Any) -> None:
    numbers = iter(range(8))
    assert seconds(lambda: submit(full, catalogue, samples={"index": [next(numbers)]})) < 0.3
    gone = iter(range(3))
    assert seconds(lambda: submit(full, catalogue, samples={"id": [f"train/gone-{next(gone)}.png"]})) < 1.5
    assert full.check().seq == full.ledger.head().seq


def test_the_whole_chain_is_checked_in_two_seconds(full: Desk) -> None:
    assert seconds(full.check) < 2
    assert seconds(full.ledger.standing_differs) < 4


def test_it_all_fits_into_little_memory(full: Desk) -> None:
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from tasks.requests.desk import Desk\n"
        "from tasks.requests.keys import KeyStore\n"
        "from tasks.requests.ledger import Ledger\n"
        "from tasks.requests.settings import Settings\n"
        "ledger = Ledger(f'sqlite:///{sys.argv[1]}/ledger.db')\n"
        "desk = Desk(ledger, KeyStore(Path(sys.argv[1], 'keys'), Path(sys.argv[1], 'project')), Settings())\n"
        "desk.check()\n"
        "assert ledger.standing_differs() == []\n"
        "assert len(desk.rows()) >= 10_000\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(full.keys.folder.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) / 1024 < 300  # MiB at its peak


def test_the_record_of_a_request_does_not_grow_with_its_batch(full: Desk) -> None:
    events = full.ledger.events("20260101-00000007")
    assert len(events) == 9
    own = sum(
        len(event.at) + len(event.kind) + len(event.request or "") + len(event.text) + 2 * 64
        for event in events
        if event.kind != "validated"
    )
    assert own < 4_000
    assert all("20260101-00000008" not in event.text for event in events)
