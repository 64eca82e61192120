"""What a sweep does before its first job and after its last (a Hydra callback)."""

from __future__ import annotations

import atexit
import shutil
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from harness.cli import fail


class SweepReport(Callback):
    """Refuses a folder that is taken; at the end prints the table and writes report.html.

    Hydra turns a callback's exceptions into warnings, so these end the process themselves.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if folder.exists() and any(folder.iterdir()) and not config.resume:
            message = f"hydra.sweep.dir={folder} exists already; go on with it by resume=true"
            sys.exit(fail(message, 2))
        atexit.register(_remove_if_empty, folder)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from harness.compare import print_comparison
        from harness.report import write_report
        from harness.runs import find_runs

        folder = Path(config.hydra.sweep.dir)
        records = find_runs([folder])
        print_comparison(records, sys.stdout)
        write_report(records, folder / "report.html", [folder])
        print(f"{folder}/report.html written", file=sys.stderr)
        if any(record.status != "finished" for record in records):
            sys.exit(1)


def _remove_if_empty(folder: Path) -> None:
    """Take away the folder of a sweep that was refused before its first job: Hydra had made it."""
    left = {path.name for path in folder.iterdir()} if folder.is_dir() else None
    if left is not None and left <= {"multirun.yaml"}:
        shutil.rmtree(folder)
