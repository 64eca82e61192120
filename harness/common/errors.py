"""The two errors that end a command with one line and no traceback."""


class UsageError(Exception):
    """The user asked for something impossible. One line: what is wrong, where, what to do. Exit
    code 2."""


class RunFailure(Exception):
    """Work failed after it started (NaN loss, full disk). One line, exit code 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or that of a library, which says so in words."""
    words = ("out of memory", "can't allocate memory", "unable to allocate")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
