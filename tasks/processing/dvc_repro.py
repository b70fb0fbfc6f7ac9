"""The stages run by plain ``dvc repro``, for processing without Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tasks import journal
from tasks.core.errors import ExpungeError
from tasks.core.params import load


def run_stages(target: str, tags: Mapping[str, str]) -> str:
    """Bring the stages up to ``target`` up to date; return the key of the pipeline run.

    Raises
    ------
    ExpungeError
        If a stage fails; what it said went to standard error.
    """
    with journal.pipeline(load().tracking, Path.cwd()) as record:
        record.tags(tags)
        variables = {"EXPUNGE_PIPELINE": record.handle, "EXPUNGE_TAGS": json.dumps(dict(tags))}
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", target],
            env={**os.environ, **variables},
            stdout=sys.stderr,
            check=False,
        )
        if done.returncode != 0:
            raise ExpungeError(f"dvc repro {target} failed with status {done.returncode}")
        return record.key
