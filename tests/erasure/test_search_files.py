"""Files as they are found on a disk: links, pipes, unreadable and large ones, ones that change meanwhile."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tasks.erasure.search import Found, Unread, find
from tests.erasure.formats.samples import IMAGES, NAME, erased

SOUGHT = erased(IMAGES[3])


def test_links_pipes_and_devices_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(NAME)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "link", tmp_path / "loop", tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        found = find(path, SOUGHT)
        assert found == Found()
        assert found.unread == {Unread.SPECIAL: 1}
    assert find(tmp_path / "file", SOUGHT) == Found(names=1)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "file", SOUGHT)


def test_a_file_that_may_not_be_read_is_counted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "file"
    path.write_text(NAME)
    path.chmod(0)
    code = (
        "import os, pathlib\nfrom tasks.erasure.search import find, Sought\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "print(dict(find(pathlib.Path('file'), Sought.of_samples(['x'])).unread))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert "UNREADABLE" in done.stdout


def test_a_name_that_is_not_utf_8_is_no_hindrance(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    path.write_text(NAME)
    assert find(path, SOUGHT) == Found(names=1)


def test_a_file_that_changes_meanwhile_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"nothing to see here\n" * 1_000_000)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            with path.open("ab") as file:
                file.write(b"more\n")
            os.truncate(path, 10_000_000)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        found = find(path, SOUGHT)
    finally:
        stop.set()
        thread.join()
    assert not found
    assert found.unread == {Unread.CHANGED: 1}


def test_an_array_that_shrinks_meanwhile_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((40_000, 3, 16, 16), dtype=np.uint8))
    timer = threading.Timer(0.01, lambda: os.truncate(path, 1000))
    timer.start()
    found = find(path, SOUGHT)
    timer.join()
    assert not found


def test_a_large_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(b"\0\1\2")
        file.seek(1 << 28)
        file.write(f"\n{NAME}\n".encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert find(path, SOUGHT) == Found(names=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
