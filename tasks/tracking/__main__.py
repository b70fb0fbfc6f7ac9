"""Send what waits in the spool to MLflow, or look up a run's id there.

``send`` is what stages start by themselves. ``flush`` sees that everything is sent before it returns.
``find`` prints the MLflow run id of a run's key, as it stands in ``data/<stage>/run.json``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path

from tasks.journal.origin import main_root
from tasks.journal.spool import SPOOL, sender_is_busy, start_sender
from tasks.tracking import run_ids
from tasks.tracking.pending import Waiting, unreadable, waiting

WAITS = 75
"""Exit status of ``flush`` when runs still wait: EX_TEMPFAIL of sysexits.h. Nothing is lost."""


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tasks.tracking", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("send", help="deliver the spool; follow the runs that are at work")
    flush_parser = commands.add_parser(
        "flush",
        help="deliver the spool and wait for it",
        description=f"Deliver the spool and wait for it. Exit status {WAITS} if runs still wait afterwards, "
        "e.g. because the store does not answer: they are kept, and sent with the next run.",
    )
    flush_parser.add_argument(
        "--timeout", type=float, default=60, metavar="S", help="wait no longer than S seconds (default: 60)"
    )
    find_parser = commands.add_parser("find", help="print the MLflow run id of a run's key")
    find_parser.add_argument("key", help='"run" in data/<stage>/run.json')
    arguments = parser.parse_args()
    root = main_root(Path.cwd())
    if arguments.command == "send":
        return _send(root)
    if arguments.command == "flush":
        return flush(root, arguments.timeout)
    return _find(root, arguments.key)


def flush(root: Path, timeout: float) -> int:
    """See that all runs that are over get sent; print what could not be, and return the exit status."""
    deadline = time.monotonic() + timeout
    sender = None
    while left := [journal for journal in waiting(root) if journal.is_over]:
        busy = sender_is_busy(root)
        if sender is None and not busy:
            sender = start_sender(root, forced=True)
        elif sender is not None and sender.poll() is not None and not busy:
            break
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for line in _complaints(root, left):
        print(line, file=sys.stderr)
    return WAITS if left else 0


def _complaints(root: Path, left: list[Waiting]) -> list[str]:
    reasons = Counter(journal.problem or "still being sent" for journal in left)
    lines = [
        f"{count} {'run waits' if count == 1 else 'runs wait'} in {SPOOL}: {reason}; sent with the next "
        "run, or by: python -m tasks.tracking flush"
        for reason, count in reasons.items()
    ]
    return lines + [f"{path} cannot be read and is not sent; delete it" for path in unreadable(root)]


def _send(root: Path) -> int:
    from tasks.tracking.sender import send

    os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the output is a log
    os.nice(5)  # the stage's arithmetic goes first
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    send(root)
    return 0


def _find(root: Path, key: str) -> int:
    found = run_ids([key], root)
    if key not in found:
        print(
            f"no run {key} was sent from here; what waits is sent by: python -m tasks.tracking flush",
            file=sys.stderr,
        )
        return 1
    print(found[key])
    return 0


if __name__ == "__main__":
    sys.exit(main())
