"""A configuration against another one, or against another revision of the code, step by step in
alternation: the speed of a machine drifts, and hits both alike.

Each side trains in a process of its own and waits while the other one's turn is timed.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.common.console import Console
from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.data.assets import Assets
from harness.diagnostics.one_side import TURN, TURNS, WARM_UP

OPTION = "--against"
LEAVE = 5  # seconds that a side has to end by itself
SIDE = Path(__file__).with_name("one_side.py")


def against() -> int:
    """Print the table of the two sides on stdout."""
    words, other = _parse(sys.argv[1:])
    parts = shlex.split(other)
    settings = [part for part in parts if "=" in part or part.startswith("~")]
    if settings and settings != parts:
        raise UsageError(f"{OPTION} {other}: not every part is a setting (key=value)")
    with ExitStack() as stack:
        if settings:
            sides = [(words, REPOSITORY), ([*words, *settings], REPOSITORY)]
        else:
            sides = [(words, REPOSITORY), (words, stack.enter_context(_revision(other)))]
        measured = alternate([stack.enter_context(_side(*side)) for side in sides])
    names = (" ".join(words) or "the defaults", other) if settings else ("this code", other)
    _show(names, measured)
    return 0


def _parse(words: Sequence[str]) -> tuple[list[str], str]:
    """The settings of both sides, and what the second one has of its own."""
    rest = list(words)
    at = next(n for n, word in enumerate(rest) if word.partition("=")[0] == OPTION)
    _, equals, other = rest.pop(at).partition("=")
    if not equals and at < len(rest):
        other = rest.pop(at)
    if not other.strip() or other.startswith("-"):
        raise UsageError(f"{OPTION} takes settings ('optimizer=muon') or a revision (HEAD~1)")
    return rest, other


@contextmanager
def _revision(name: str) -> Iterator[Path]:
    """The files of a revision of this repository, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "files.tar"
        command = ["git", "-C", str(REPOSITORY), "archive", f"--output={archive}", "--", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise UsageError(f"{OPTION} {name}: a revision needs git, which is not here") from error
        if done.returncode:
            why = " ".join(done.stderr.split()) or "git can't read it"
            raise UsageError(f"{OPTION} {name}: neither settings (key=value) nor a revision: {why}")
        with tarfile.open(archive) as files:
            files.extractall(Path(folder) / "tree", filter="data")
        yield Path(folder) / "tree"


@contextmanager
def _side(words: Sequence[str], tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains with the code of `tree`, one turn for each line that it is sent. Assets
    are those of this code."""
    paths = [str(tree), str(tree / "tokenizers"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # -P: the folder of this file is no place to import from.
    given = {word.partition("=")[0] for word in words}
    assets = (
        [] if "assets" in given else [f"assets={json.dumps(list(map(str, Assets.own().path)))}"]
    )
    command = [sys.executable, "-P", str(SIDE), *words, *assets]
    process = subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        assert process.stdin is not None, "it is a pipe"
        process.stdin.close()  # it leaves, and cleans up behind itself
        with suppress(subprocess.TimeoutExpired):
            process.wait(LEAVE)
        process.kill()
        process.wait()


def alternate(sides: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """What each measured: {"seconds": of each turn that counts, "peak_memory": bytes}.

    The side that begins changes, so that neither always follows the other."""
    for side in sides:  # both have begun: a start disturbs what is timed
        _answer(side)
    measured: list[Any] = [None] * len(sides)
    for turn in range(WARM_UP + TURNS):
        for at in range(len(sides)) if turn % 2 else reversed(range(len(sides))):
            stdin = sides[at].stdin
            assert stdin is not None, "it is a pipe"
            stdin.write("\n")
            stdin.flush()
            measured[at] = _answer(sides[at])
        if sys.stderr.isatty():
            print(f"\rturn {turn + 1} of {WARM_UP + TURNS}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return measured  # with the last turn each says what it found


def _answer(side: subprocess.Popen[str]) -> Any:
    assert side.stdout is not None, "it is a pipe"
    line = side.stdout.readline()
    if not line:
        sys.exit(side.wait() or 1)  # it has said why
    return json.loads(line)


def _show(names: Sequence[str], measured: Sequence[dict[str, Any]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for header in ("ms a step", "peak memory, MB"):
        table.add_column(header, justify="right")
    for name, found in zip(names, measured, strict=True):
        step = statistics.median(found["seconds"]) / TURN
        table.add_row(name, f"{1e3 * step:.2f}", f"{found['peak_memory'] / 1e6:,.0f}")
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)
    ratios = [one / two for one, two in zip(*(each["seconds"] for each in measured), strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"{names[0]} / {names[1]}: {middle:.3f} of the time, half of {len(ratios)} pairs of {TURN} "
        f"steps from {low:.3f} to {high:.3f}"
    )
