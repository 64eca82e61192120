"""The two errors that end a command with one line and no traceback."""


class UsageError(Exception):
    """The user asked for something impossible. One line: what is wrong, where, what to do. Exit
    code 2."""


class RunFailure(Exception):
    """Work failed after it started (NaN loss, full disk). One line, exit code 1."""
