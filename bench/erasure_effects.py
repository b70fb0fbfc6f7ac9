"""Something run in a process of its own, which may be killed, or meet a full disk, at any effect it has.

Python tells of every file that is opened for writing, renamed or deleted and of every program that is started
(:func:`sys.addaudithook`), before it happens. So a kill can be put between any two effects without knowing
which functions there are: nothing here names a function of the code that is attacked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EFFECTS = {
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "shutil.rmtree": "remove",
    "os.link": "write",
    "os.symlink": "write",
    "os.mkdir": "write",
    "os.truncate": "write",
    "open": "write",
    "subprocess.Popen": "program",
}
"""Kind of effect by the name of the event that announces it."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """Stands for a kill after which Python still tidies up, as on SIGTERM: nothing of ours catches it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and when.

    Attributes
    ----------
    what
        ``kill``: SIGKILL; ``raise``: an exception that nothing catches; ``full``: no space left from then on.
    effect
        Kind of effect that is counted, as in :data:`EFFECTS`, or ``any``.
    number
        Before which of them, from 1.
    """

    what: str
    effect: str
    number: int

    def __str__(self) -> str:
        return f"{self.what} at {self.effect} effect {self.number}"


@dataclass(slots=True)
class Outcome:
    """How it ended: with a value, with an error, or not at all."""

    value: Any = None
    error: str = ""
    kind: str = ""
    """Name of the error's class; ``Killed`` if the process was killed."""
    trace: str = ""


def in_child(
    function: Callable[[], Any],
    *,
    root: Path,
    home: Path,
    environ: Mapping[str, str],
    fault: Fault | None = None,
    seconds: float = 240,
) -> Outcome:
    """Run a function in a forked process whose working directory is ``root``; return how it ended.

    Parameters
    ----------
    function
        Returns a value that can be pickled.
    root, home
        Working directory; folder below which effects count.
    environ
        The whole environment of the process.
    fault
        What goes wrong meanwhile.
    seconds
        After which it is killed, as if it hung.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_the_child(function, root, home, environ, fault, writing)
    os.close(writing)
    data, hung = _read(reading, pid, seconds)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    _kill_group(pid)
    if hung:
        return Outcome(
            error=f"did not end within {seconds:.0f} s", kind="Hung", trace=data.decode(errors="replace")
        )
    if data and not os.WIFSIGNALED(status):
        outcome: Outcome = pickle.loads(data)  # noqa: S301 - our own child wrote it
        return outcome
    return Outcome(error=f"ended by signal or status {status}", kind="Killed")


def _read(descriptor: int, pid: int, seconds: float) -> tuple[bytes, bool]:
    import select

    data, deadline = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.killpg(pid, signal.SIGKILL)
            return data, True
        part = os.read(descriptor, 65536)
        if not part:
            return data, False
        data += part


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _be_the_child(
    function: Callable[[], Any],
    root: Path,
    home: Path,
    environ: Mapping[str, str],
    fault: Fault | None,
    writing: int,
) -> None:
    outcome = Outcome()
    try:
        os.setsid()
        _die_with_the_parent()
        warnings.simplefilter("ignore")  # what a test makes of warnings is not for DVC in this process
        os.chdir(root)
        os.environ.clear()
        os.environ.update(environ)
        silence()
        if fault is not None:
            sys.addaudithook(_Hook(fault, str(home)))
        outcome.value = function()
    except BaseException as error:
        outcome.error, outcome.kind = str(error) or repr(error), type(error).__name__
        outcome.trace = traceback.format_exc()
    finally:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)


def _die_with_the_parent() -> None:
    """Let the child be killed when its parent is: a session of its own hides it from Ctrl-C."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # only Linux has it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def silence() -> None:
    """Send what is printed nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


class _Hook:
    """Counts effects below a folder, and lets the fault happen before the one that was chosen."""

    def __init__(self, fault: Fault, home: str) -> None:
        self._fault = fault
        self._home = home
        self._count = 0
        self._over = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        kind = EFFECTS.get(event)
        if kind is None or self._over or not self._counts(event, arguments):
            return
        if self._fault.what == "full" and self._count >= self._fault.number - 1:
            if kind == "write":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        if self._fault.effect not in {"any", kind}:
            return
        self._count += 1
        if self._count < self._fault.number:
            return
        if self._fault.what == "kill":
            os.killpg(0, signal.SIGKILL)
            time.sleep(60)
        if self._fault.what == "raise":
            self._over = True
            raise Killed

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "subprocess.Popen":
            return True
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return False
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str | os.PathLike):
            return False
        text = os.fspath(path)
        return not text.startswith("/") or text.startswith(self._home)


def dvc(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of DVC in a fork of this process, which has imported it already."""
    with tempfile.TemporaryFile("w+") as said:
        pid = os.fork()
        if pid == 0:
            _be_dvc(arguments, cwd, said.fileno())
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        text = said.read()
    code = os.waitstatus_to_exitcode(status)
    if code == KILLED:
        raise Killed
    return subprocess.CompletedProcess(["dvc", *arguments], code, "", text)


KILLED = 77


def _be_dvc(arguments: Sequence[str], cwd: Path | None, said: int) -> None:
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        if cwd is not None:
            os.chdir(cwd)
        from dvc.cli import main

        code = main(list(arguments))
    except Killed:
        code = KILLED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def program(*command: str, cwd: Path, environ: Mapping[str, str], quiet: bool = True) -> str:
    """Run a program to its end, and return what it prints; raise if it fails, unless ``quiet`` is off."""
    done = subprocess.run(
        command, cwd=cwd, env=dict(environ), capture_output=True, text=True, check=False, errors="replace"
    )
    if done.returncode != 0 and quiet:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout
