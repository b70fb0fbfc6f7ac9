"""The one exception that reaches a user as a single line."""


class ExpungeError(Exception):
    """Bad input, or a state of the disk that the user can mend.

    The message is one line: what is wrong, where, and what would be right.
    Stages print it without a traceback and exit with status 2.
    """
