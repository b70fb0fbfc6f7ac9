"""A temporary folder goes with the process that made it, or else with the next purge."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tasks.core.temporary import FOLDER, clear, temporary_folder

LEFT = """
import os, signal
from tasks.core.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "object").write_text("a sample")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_cleared_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    assert clear(tmp_path) == 0
    done = subprocess.run(
        [sys.executable, "-c", LEFT], cwd=tmp_path, check=False, env={"PYTHONPATH": str(Path.cwd())}
    )
    assert done.returncode == -signal.SIGKILL
    with temporary_folder(tmp_path) as used:
        (used / "object").write_text("mine")
        assert len(list((tmp_path / FOLDER).rglob("object"))) == 2
        assert clear(tmp_path) == 1
        assert list((tmp_path / FOLDER).rglob("object")) == [used / "object"]
    assert list((tmp_path / FOLDER).iterdir()) == []
    assert clear(tmp_path) == 0
