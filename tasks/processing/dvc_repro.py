"""The stages run by plain ``dvc repro``, for processing without Prefect."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tasks import journal
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.params import load

BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked|Lock .* is held")
"""What DVC says while another of its commands is at work in the same repository."""


class StageFailedError(ExpungeError):
    """A stage of the pipeline failed."""


def run_stages(target: str, tags: Mapping[str, str]) -> str:
    """Bring the stages up to ``target`` up to date; return the key of the pipeline run.

    Raises
    ------
    BusyError
        If another command of DVC is at work in this repository; waiting helps.
    StageFailedError
        If a stage fails; what it said went to standard error.
    """
    with journal.pipeline(load().tracking, Path.cwd()) as record:
        record.tags(tags)
        variables = {"EXPUNGE_PIPELINE": record.handle, "EXPUNGE_TAGS": json.dumps(dict(tags))}
        command = [sys.executable, "-m", "dvc", "repro", target]
        with subprocess.Popen(
            command,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            busy = False
            for line in process.stdout or ():
                busy = busy or bool(BUSY.search(line))
                print(line, end="", file=sys.stderr, flush=True)
        if process.returncode != 0 and busy:
            raise BusyError(f"dvc repro {target} waits: another command of DVC is at work here")
        if process.returncode != 0:
            raise StageFailedError(f"dvc repro {target} failed with status {process.returncode}")
        return record.key
