"""What to tell of a stage that failed, and whether another try can help."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

NO_RETRY = {2, 126, 127}
"""Exit statuses that another try cannot change: bad input; the shell cannot run, or find, the command."""

_EXIT = re.compile(r"failed to run: .*, exited with (?P<status>-?\d+)$")
_TRANSIENT = re.compile(r"is busy, it is being blocked by|Unable to acquire lock|\[Errno (?!2\]|13\])")
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
    """

    def __init__(self, message: str, *, transient: bool, ending: str = "") -> None:
        super().__init__(message)
        self.transient = transient
        self.ending = ending or message


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
        return StageError(error, transient=_TRANSIENT.search(error) is not None)
    code = int(exited["status"])
    own = [line for line in said[:at] if not _OTHERS.match(line)]
    message = f"{_PROGRAM.sub('', own[-1])} ({_ending(code)})" if own else _ending(code)
    return StageError(message, transient=code not in NO_RETRY, ending=_ending(code))


def names_nothing(line: str) -> bool:
    """Whether a line of output is none in which a stage says what is wrong, with the names of samples."""
    return _PROGRAM.match(line) is None


def _ending(status: int) -> str:
    """An exit status in words; a shell reports a signal as 128 + its number."""
    number = -status if status < 0 else status - 128
    if number in set(signal.Signals):
        return f"killed by {signal.Signals(number).name}"
    return f"exit status {status}"
