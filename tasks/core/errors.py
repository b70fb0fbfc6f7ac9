"""The one exception that reaches a user as a single line, and what such lines share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

RESTORE = "restore it: dvc checkout --force, or make it again: dvc repro --force"
"""What to do with a damaged or missing output of a stage."""


RESTORE_LOCK = "restore it: git checkout -- dvc.lock"
"""What to do with a damaged ``dvc.lock``."""


class ExpungeError(Exception):
    """Bad input, or a state of the disk that the user can mend.

    The message is one line: what is wrong, where, and what would be right.
    Stages print it without a traceback and exit with status 2.
    """


class BusyError(ExpungeError):
    """Another process is at work in the same place; waiting helps."""


class AtWorkError(BusyError):
    """The other process is one that is seen to be at work: no person is needed, the next run goes on."""


class UnavailableError(ExpungeError):
    """A server that does not answer; what was asked of it can be asked again later."""


class PlainError(ExpungeError):
    """About the record or the setup: its text names no sample, so any server may be told it."""


@contextmanager
def plainly() -> Iterator[None]:
    """Let the body's errors be told to any server; it handles nothing that has a sample's name."""
    try:
        yield
    except (BusyError, UnavailableError):
        raise
    except ExpungeError as error:
        raise PlainError(str(error)) from error
