"""What to tell of a stage that failed, whether another try can help, and whether somebody is in the way.

Whoever calls ``dvc`` tells by what is here: the flows, plain ``dvc repro``, the purge.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

NO_RETRY = {2, 126, 127}
"""Exit statuses that another try cannot change: bad input; the shell cannot run, or find, the command."""

BUSY = 75
"""Exit status of a stage that another process keeps out: EX_TEMPFAIL of sysexits.h."""

_EXIT = re.compile(r"failed to run: .*, exited with (?P<status>-?\d+)$")
_BUSY = re.compile(r"is busy, it is being blocked by|Unable to acquire lock")
_TRANSIENT = re.compile(r"\[Errno (?!2\]|13\])")
_STAGE = re.compile(r"failed to reproduce '(?P<stage>[^']+)'")
_HOLDER = re.compile(r"\(PID (?P<dvc>\d+)\)|by process (?P<own>\d+);")
_BLOCKER = re.compile(r"^ +\(PID \d+\): ")
_PROGRAM = re.compile(r"^expunge \w+: ")
_SIGNALS = "|".join(re.escape(words) for number in signal.Signals if (words := signal.strsignal(number)))
_OTHERS = re.compile(
    rf"> |Running stage |(.*: line \d+: +\d+ ({_SIGNALS}) .*|({_SIGNALS})( \(core dumped\))?)$"
)
"""Lines that the stage did not write: DVC's, and a shell's word on the signal that ended its command."""


class StageError(Exception):
    """A stage, or DVC on its behalf, failed.

    Parameters
    ----------
    message
        One line: the last thing the stage said, and how it ended.
    transient
        Whether another try can help.
    ending
        How it ended, without what the stage said, which may name samples.
    busy
        Who is in the way and what to do, if nothing is wrong but that: one line that names no sample.
    """

    def __init__(self, message: str, *, transient: bool, ending: str = "", busy: str = "") -> None:
        super().__init__(message)
        self.transient = transient
        self.ending = ending or message
        self.busy = busy

    def __repr__(self) -> str:
        """Tell how it ended alone: Prefect logs what a state holds."""
        return f"StageError({self.ending!r})"


def failure(said: Sequence[str], status: int) -> StageError:
    """What to tell of a failed stage: the last line it wrote itself, and how it ended."""
    if status < 0:
        return StageError(f"dvc was {_ending(status)}", transient=True)
    at = max((i for i, line in enumerate(said) if line.startswith("ERROR: ")), default=len(said))
    error = said[at].removeprefix("ERROR: ") if at < len(said) else f"dvc exited with status {status}"
    if error.endswith(":"):  # DVC names the cause, such as the process in the way, on the next line
        error = " ".join([error, *(line.strip() for line in said[at + 1 : at + 2])])
    exited = _EXIT.search(error)
    if exited is None:
        busy = who_is_busy(error)
        transient = bool(busy or _TRANSIENT.search(error))
        return StageError(error, transient=transient, ending=busy, busy=busy)
    code = int(exited["status"])
    own = [line for line in said[:at] if not _OTHERS.match(line)]
    message = f"{_PROGRAM.sub('', own[-1])} ({_ending(code)})" if own else _ending(code)
    busy = _kept_out(error, message) if code == BUSY else ""
    return StageError(message, transient=code not in NO_RETRY, ending=busy or _ending(code), busy=busy)


def who_is_busy(error: str) -> str:
    """Return in one line that another command of DVC is in the way, if that is what DVC says; else nothing.

    DVC's own words give the whole command line of the other, which may name a sample.
    """
    if _BUSY.search(error) is None:
        return ""
    return (
        f"another command of DVC{_holder(error)} is at work here; wait for it, or, if there is none, delete "
        "what it has left: rm .dvc/tmp/lock .dvc/tmp/rwlock"
    )


def names_nothing(line: str) -> bool:
    """Whether a line of output says neither what is wrong in a stage nor another's command line.

    Both may name samples.
    """
    return _PROGRAM.match(line) is None and _BLOCKER.match(line) is None


def _kept_out(error: str, message: str) -> str:
    stage = _STAGE.search(error)
    name = f"stage {stage['stage']}: " if stage else ""
    return f"{name}another process{_holder(message)} is at work on the same files; wait for it, or end it"


def _holder(text: str) -> str:
    found = _HOLDER.search(text)
    return f" ({found['dvc'] or found['own']})" if found else ""


def _ending(status: int) -> str:
    """An exit status in words; a shell reports a signal as 128 + its number."""
    number = -status if status < 0 else status - 128
    if number in set(signal.Signals):
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"
