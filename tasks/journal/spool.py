"""The spool: where journals lie until they are sent, and the process that sends them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tasks.core.files import STATE

SPOOL = STATE / "spool"
LINES = "journal.jsonl"
SENDER_LOCK = STATE / "sender.lock"
SENDER_LOG = STATE / "sender.log"
LOG_LIMIT = 1_000_000


def line(entry: Mapping[str, object]) -> bytes:
    """One entry as a line of JSON; NaN and infinity as Python writes them."""
    return json.dumps(entry).encode() + b"\n"


def create(root: Path, header: Mapping[str, Any]) -> Path:
    """Create a journal with its first line, whole or not at all; keep one that is there."""
    folder = root / SPOOL / str(header["key"])
    new = folder.with_name(f".{uuid.uuid4().hex}")
    new.mkdir(parents=True)
    with (new / LINES).open("wb") as file:
        file.write(line(header))
        file.flush()
        os.fsync(file.fileno())
    try:
        new.rename(folder)
    except OSError:  # another stage of the pipeline has opened it
        shutil.rmtree(new)
    return folder


def start_sender(root: Path, *, forced: bool = False) -> subprocess.Popen[bytes] | None:
    """Start the process that sends the spool, unless one is at work or EXPUNGE_TRACKING is ``off``.

    A sender that is at work looks at the spool once more after it has given its lock back, so a
    journal opened while the lock was held is seen. ``forced`` starts one whatever EXPUNGE_TRACKING says.
    """
    if (os.environ.get("EXPUNGE_TRACKING") == "off" and not forced) or sender_is_busy(root):
        return None
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
    # The code in the main root comes first (cwd): a temporary workspace disappears while we send.
    paths = (str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    with (root / SENDER_LOG).open("ab") as output:
        if output.tell() > LOG_LIMIT:
            output.truncate(0)
        process = subprocess.Popen(
            (sys.executable, "-m", "tasks.tracking", "send"),
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    _senders.append(process)
    return process


_senders: list[subprocess.Popen[bytes]] = []  # Python warns of a child that is collected while it runs


def sender_is_busy(root: Path) -> bool:
    """Whether a process is sending the spool at this moment."""
    lock = FileLock(root / SENDER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
