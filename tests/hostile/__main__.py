"""How commands end on hostile folders, counted.

    python -m tests.hostile [--only PATTERN] [--command NAME…] [--all]

Prints a line for each end that is not good (--all: for every one), and the table. Leaves with 1 if
there is such an end.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from tests.hostile import folders, trying
from tests.small_runs import GPT_SMALL, train


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--only", default="", metavar="PATTERN", help="folders of these names")
    parser.add_argument("--command", action="append", choices=[*trying.COMMANDS])
    parser.add_argument("--all", action="store_true", help="print every end")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [name for name in folders.names() if re.search(options.only, name)]
    counts = {command: Counter[str]() for command in options.command or trying.COMMANDS}
    peak, slowest = 0, 0.0
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_STATE_HOME"] = str(base / "cache")
        if train(base / "whole", *GPT_SMALL, "train.steps=30", "optimizer.lr=1e-2"):
            return 1
        for name in chosen:
            for command in counts:
                tried = trying.attempt(name, command, base / "whole" / "run", base / "try")
                shutil.rmtree(base / "try")
                counts[command][tried.outcome] += 1
                peak, slowest = max(peak, tried.memory), max(slowest, tried.seconds)
                if options.all or tried.outcome not in trying.GOOD:
                    last = tried.said.strip().rpartition("\n")[2][:300]
                    print(f"{command:9} {tried.outcome:16} {name}: {last!r}", flush=True)
    print(f"\n{len(chosen)} folders")
    print(f"{'':9}", *(f"{outcome:>16}" for outcome in trying.OUTCOMES))
    for command, found in counts.items():
        print(f"{command:9}", *(f"{found[outcome]:16}" for outcome in trying.OUTCOMES))
    print(f"most memory {peak / 1e9:.2f} GB, longest {slowest:.0f} s")
    return int(any(found[each] for found in counts.values() for each in found
                   if each not in trying.GOOD))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
