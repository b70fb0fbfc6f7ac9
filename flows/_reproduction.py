"""One ``dvc repro``, told apart by stage.

``dvc repro --single-item a b c`` evaluates the stages one after the other in the given order, each with
the files that it then finds. So DVC decides what runs at the moment it matters, and its start (0.6 s) is
paid once, not once a stage.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from flows._plan import DVC, Plan, environment
from tasks.core.dvc_failure import StageError, failure

Done = Literal["success", "cached"]

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL; a Prefect worker kills the flow itself 30 s after its SIGTERM."""

_WORD = re.compile(
    r"^Running stage '(?P<success>[^']+)':$"
    r"|^Stage '(?P<cached>[^']+)' (?:didn't change, skipping|is cached - skipping run, checking out outputs)$"
    r"|^ERROR: failed to reproduce '(?P<error>[^']+)'"
)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Reproduction:
    """A ``dvc repro`` whose output is handed out stage by stage, and which never outlives its owner.

    Use it as a context manager: on leaving, however that happens, the whole process group of DVC and
    its stage ends (SIGTERM, after :data:`GRACE` seconds SIGKILL).

    Parameters
    ----------
    root
        The DVC repository.
    planned
        From :func:`plan`.
    force
        Run the stages even if nothing changed.
    variables
        Environment variables for the stages, on top of this process's own.

    Attributes
    ----------
    error
        How a stage failed last, for whoever follows.
    """

    def __init__(self, root: Path, planned: Plan, *, force: bool, variables: Mapping[str, str]) -> None:
        self.error: StageError | None = None
        self._root = root
        self._planned = planned
        self._force = force
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: Iterator[str] = iter(())
        self._ahead: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def follow(self, stage: str, log: Callable[[str], None]) -> Done:
        """Wait until DVC is done with ``stage``, passing each line of output that says something to ``log``.

        Stages are followed in the plan's order. After a failure, following the same stage again
        starts DVC again, at that stage.

        Raises
        ------
        StageError
            If the stage or DVC failed.
        """
        if self._process is None:
            self._process = self._start(stage)
        done: Done | None = None
        said: deque[str] = deque(maxlen=1000)
        for line in self._lines_of(stage):
            if (word := _WORD.match(line)) and stage in (word["success"], word["cached"]):
                done = "success" if word["success"] else "cached"
            if line:
                said.append(line)
                log(line)
        if self._ahead is None:
            status = self._process.wait()
            self._stop()
            if status != 0:
                raise failure(list(said), status)
        if done is None:
            raise StageError("DVC ended without a word about it", transient=False)
        return done

    def _start(self, stage: str) -> subprocess.Popen[bytes]:
        at = self._planned.stages.index(stage)
        targets = [*(self._planned.sources if at == 0 else []), *self._planned.stages[at:]]
        try:
            process = subprocess.Popen(
                [*DVC, "repro", "--single-item", *(["--force"] if self._force else []), *targets],
                cwd=self._root,
                env=environment(self._variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StageError(f"dvc does not start: {error}", transient=True) from None
        self._lines, self._ahead = _plain_lines(process), None
        return process

    def _lines_of(self, stage: str) -> Iterator[str]:
        """Lines up to DVC's first word about a later stage; that line is kept for the next call."""
        later = self._planned.stages[self._planned.stages.index(stage) + 1 :]
        line, self._ahead = self._ahead or next(self._lines, None), None
        while line is not None:
            if (word := _WORD.match(line)) and word[word.lastgroup or 0] in later:
                self._ahead = line
                return
            yield line
            line = next(self._lines, None)

    def _stop(self) -> None:
        """End DVC, its stage and all that they started."""
        process = self._process
        if process is None:
            return
        deadline = time.monotonic() + GRACE
        number = int(signal.SIGTERM)
        try:
            # The group counts, not DVC alone: DVC obeys at once, a stage may need its time.
            while _signal_group(process, number) and time.monotonic() < deadline:
                number = 0
                process.poll()
                time.sleep(0.05)
        finally:
            with process:  # waits for it and closes its output
                _signal_group(process, signal.SIGKILL)
            self._process = None


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Whether the process group still existed to receive the signal; 0 only asks."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _plain_lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """Lines of output without colours; of a progress bar's redrawn line only the last state."""
    for raw in process.stdout or ():
        text = raw.decode(errors="replace").rstrip()
        yield _COLOUR.sub("", text.rpartition("\r")[2])
