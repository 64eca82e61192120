"""Tables and coloured lines on stdout."""

from __future__ import annotations

import rich.console


class Console(rich.console.Console):
    """rich's, which leaves a pipe that nobody reads any more to its caller: rich itself would exit
    with 1, as if the command had failed."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
