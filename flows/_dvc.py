"""DVC as a child process: what would run, and one ``dvc repro`` told apart by stage.

One process serves a whole pipeline. ``dvc repro --single-item a b c`` evaluates the stages one after
the other in the given order, each with the files that it then finds, so DVC decides what runs at the
moment it matters, and its start (0.6 s) is paid once, not once a stage.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Literal, NamedTuple, Self

from tasks.errors import ExpungeError

Done = Literal["success", "cached"]

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL; a Prefect worker kills the flow itself 30 s after its SIGTERM."""

NO_RETRY = {2, 126, 127}
"""Exit statuses that another try cannot change: bad input; the shell cannot run, or find, the command."""

_DVC = [sys.executable, "-m", "dvc"]
_QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}
_NODE = re.compile(r'^"(?P<name>[^"]+)";$')
_EDGE = re.compile(r'^"(?P<upstream>[^"]+)" -> "(?P<name>[^"]+)";$')
_WORD = re.compile(
    r"^Running stage '(?P<success>[^']+)':$"
    r"|^Stage '(?P<cached>[^']+)' (?:didn't change, skipping|is cached - skipping run, checking out outputs)$"
    r"|^ERROR: failed to reproduce '(?P<error>[^']+)'"
)
_EXIT = re.compile(r"failed to run: .*, exited with (?P<status>-?\d+)$")
_TRANSIENT = re.compile(r"is busy, it is being blocked by|Unable to acquire lock|\[Errno (?!2\]|13\])")
_PROGRAM = re.compile(r"^expunge \w+: ")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class StageError(Exception):
    """A stage, or DVC on its behalf, failed.

    Parameters
    ----------
    message
        One line: the last thing the stage said, and how it ended.
    transient
        Whether another try can help.
    """

    def __init__(self, message: str, *, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient


class Plan(NamedTuple):
    """What a pipeline run is about to ask DVC for."""

    sources: list[str]
    """``.dvc`` files that the stages read; DVC checks them first."""
    stages: list[str]
    """Stages to evaluate, each after the stages it depends on."""
    others: list[str]
    """Stages of ``dvc.yaml`` that were not selected."""


def plan(root: Path, target: str | None) -> Plan:
    """Ask DVC for the graph and put the stages up to ``target`` (default: all) in its order.

    Raises
    ------
    ExpungeError
        If DVC cannot read the repository, or has no stage of that name.
    """
    answer = subprocess.run(
        [*_DVC, "dag", "--dot"], cwd=root, env=_environment({}), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise ExpungeError(f"dvc dag failed: {_first_error(answer.stderr.splitlines())}")
    graph: dict[str, set[str]] = {}
    for line in answer.stdout.splitlines():
        if node := _NODE.match(line):
            graph.setdefault(node["name"], set())
        elif edge := _EDGE.match(line):
            graph.setdefault(edge["name"], set()).add(edge["upstream"])
    own = [name for name in graph if not name.endswith(".dvc") and ":" not in name]
    if target is not None and target not in own:
        raise ExpungeError(f"dvc.yaml has no stage {target!r}; it has: {', '.join(own) or 'none'}")
    if not own:
        raise ExpungeError("dvc.yaml has no stages")
    needed = _ancestors(graph, own if target is None else [target])
    order = [name for name in TopologicalSorter(graph).static_order() if name in needed]
    return Plan(
        sources=[name for name in order if name.endswith(".dvc")],
        stages=[name for name in order if not name.endswith(".dvc")],
        others=[name for name in own if name not in needed],
    )


def _ancestors(graph: Mapping[str, set[str]], names: Sequence[str]) -> set[str]:
    found: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_.extend(graph.get(name, ()))
    return found


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
    environment
        Variables for the stages, on top of this process's own.
    """

    def __init__(self, root: Path, planned: Plan, *, force: bool, environment: Mapping[str, str]) -> None:
        self._root = root
        self._planned = planned
        self._force = force
        self._environment = environment
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
                raise _failure(list(said), status)
        if done is None:
            raise StageError("DVC ended without a word about it", transient=False)
        return done

    def _start(self, stage: str) -> subprocess.Popen[bytes]:
        at = self._planned.stages.index(stage)
        targets = [*(self._planned.sources if at == 0 else []), *self._planned.stages[at:]]
        try:
            process = subprocess.Popen(
                [*_DVC, "repro", "--single-item", *(["--force"] if self._force else []), *targets],
                cwd=self._root,
                env=_environment(self._environment),
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


def _failure(said: Sequence[str], status: int) -> StageError:
    """What to tell of a failed stage: the last line it wrote itself, and how it ended."""
    if status < 0:
        return StageError(f"dvc was {_ending(status)}", transient=True)
    at = max((i for i, line in enumerate(said) if line.startswith("ERROR: ")), default=len(said))
    error = said[at].removeprefix("ERROR: ") if at < len(said) else f"dvc exited with status {status}"
    if error.endswith(":"):  # DVC names the cause, such as the process in the way, on the next line
        error = " ".join([error, *(line.strip() for line in said[at + 1 : at + 2])])
    exited = _EXIT.search(error)
    if exited is None:
        return StageError(error, transient=_TRANSIENT.search(error) is not None)
    code = int(exited["status"])
    own = [line for line in said[:at] if not line.startswith("> ") and not _WORD.match(line)]
    message = f"{_PROGRAM.sub('', own[-1])} ({_ending(code)})" if own else _ending(code)
    return StageError(message, transient=code not in NO_RETRY)


def _ending(status: int) -> str:
    """An exit status in words; a shell reports a signal as 128 + its number."""
    number = -status if status < 0 else status - 128
    if number in set(signal.Signals):
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"


def _first_error(lines: Sequence[str]) -> str:
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or list(lines) or ["it gave no reason"])[0].removeprefix("ERROR: ")


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of this process, in which ``python`` and ``dvc`` are the ones that run the flow."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **_QUIET, **extra, "PATH": path}
