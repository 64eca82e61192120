"""`python -m harness.live [FOLDER…]`: a page on this machine that shows runs as they train."""

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError

if TYPE_CHECKING:
    from harness.live.server import Server
    from harness.live.watch import Watch

PORT = 8317
LATER_PORTS = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop. Raises UsageError for a folder or port that can't be had."""
    from harness.live.watch import Watch

    options = _parse(arguments)
    for folder in options.folders:
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: no such folder; give a run's folder or one that holds runs"
            )
    watch = Watch(options.folders or [Path("runs")])
    with _bind(watch, options.port) as server:
        print(server.address, flush=True)
        print("Ctrl-C ends the page; trainings begun from it go on.", file=sys.stderr)
        if options.open and _has_screen():
            webbrowser.open(server.ticket())
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0


def _has_screen() -> bool:
    """Without one, a browser would be one of characters, and take the terminal for itself."""
    graphical = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, graphical))


def _bind(watch: "Watch", port: int | None) -> "Server":
    """On the port asked for, or else on the first free one from PORT on."""
    from harness.live.server import ADDRESS, Server

    wanted = range(PORT, PORT + LATER_PORTS) if port is None else [port]
    for number in wanted:
        try:
            return Server(watch, number)
        except OSError as error:
            refusal = error
    raise UsageError(
        f"port {wanted[0]} of {ADDRESS} can't be had ({refusal.strerror}); "
        "--port 0 takes any that is free"
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m harness.live",
        description="Serve a page on this machine that shows runs as they train, side by side, "
        "and that starts and stops trainings.",
    )
    parser.add_argument(
        "folders",
        type=Path,
        nargs="*",
        metavar="FOLDER",
        help="a run's folder, or one that holds runs at any depth (runs)",
    )
    parser.add_argument("--port", type=int, help=f"of 127.0.0.1; 0: any that is free ({PORT})")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args(arguments)
    if options.port is not None and not 0 <= options.port < 1 << 16:
        raise UsageError(f"--port {options.port} must be from 0 to {(1 << 16) - 1}")
    return options


if __name__ == "__main__":
    run_tool(main)
