"""The one exception that reaches a user as a single line, and what such lines share."""

RESTORE = "restore it: dvc checkout --force, or make it again: dvc repro --force"
"""What to do with a damaged or missing output of a stage."""


class ExpungeError(Exception):
    """Bad input, or a state of the disk that the user can mend.

    The message is one line: what is wrong, where, and what would be right.
    Stages print it without a traceback and exit with status 2.
    """


class BusyError(ExpungeError):
    """Another process is at work in the same place; waiting helps."""


class UnavailableError(ExpungeError):
    """A server that does not answer; what was asked of it can be asked again later."""
