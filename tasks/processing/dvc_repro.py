"""The stages run by plain ``dvc repro``, for processing without Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from tasks import journal
from tasks.core.dvc_failure import StageError, failure
from tasks.core.errors import BusyError, ExpungeError
from tasks.core.params import load


class StageFailedError(ExpungeError):
    """A stage of the pipeline failed."""


def run_stages(target: str, tags: Mapping[str, str]) -> str:
    """Bring the stages up to ``target`` up to date; return the key of the pipeline run.

    Raises
    ------
    BusyError
        If another command of DVC, or another run of a stage, is at work in this repository; waiting helps.
    StageFailedError
        If a stage fails, with what it said.
    """
    with journal.pipeline(load().tracking, Path.cwd()) as record:
        record.tags(tags)
        variables = {"EXPUNGE_PIPELINE": record.handle, "EXPUNGE_TAGS": json.dumps(dict(tags))}
        command = [sys.executable, "-m", "dvc", "repro", target]
        said: deque[str] = deque(maxlen=1000)
        with subprocess.Popen(
            command,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                said.append(line.rstrip())
                print(line, end="", file=sys.stderr, flush=True)
        if process.returncode != 0:
            raise refused(failure([line for line in said if line], process.returncode), target)
        return record.key


def refused(error: StageError, stage: str) -> BusyError | StageFailedError:
    """Return what a failure means to a batch: somebody is in the way, or the stage failed.

    Only the latter counts as a try. Whoever runs the stages of a batch raises this.
    """
    return BusyError(error.busy) if error.busy else StageFailedError(f"{stage}: {error}")
