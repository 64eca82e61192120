"""The two ways a command can end badly that are not bugs."""


class UsageError(Exception):
    """The user asked for something that can't be: one line saying what, where and what to do.

    Ends in exit code 2.
    """


class RunFailure(Exception):
    """Work that began could not be finished (a non-finite loss, a full disk): one line, exit 1."""
