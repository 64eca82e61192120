"""Serve a page on this machine that shows runs as they train.

python -m harness.live [FOLDER…]
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError


def main() -> None:
    """The command."""
    run_tool(_serve)


def _serve() -> int:
    """Serves until it is told to stop. Raises UsageError for a folder or port that can't be had."""
    options = _parse()
    from harness.live.server import bind

    with bind(options.folders or [Path("runs")], options.port) as server:
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


def _parse() -> argparse.Namespace:
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
    parser.add_argument("--port", type=int, help="of 127.0.0.1; 0: any that is free (8317)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args()
    if options.port is not None and not 0 <= options.port < 1 << 16:
        raise UsageError(f"--port {options.port} must be from 0 to {(1 << 16) - 1}")
    for folder in options.folders:
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: no such folder; give a run's folder or one that holds runs"
            )
    return options


if __name__ == "__main__":
    main()
