"""What a certificate costs: CPU seconds of `harness.verify` on a run of each model.

python experiments/2026-11-28-referee/cost.py PRECISION FOLDER MODEL…
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from harness.runs import certificate

SETTINGS = ("data.split=[0.97,0.01,0.02]", "train.steps=20", "train.batch_size=16", "eval.every=20")


def cpu_seconds() -> float:
    """Of the processes that ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def main() -> None:
    """Train each model for 20 steps, and verify it, with a sample and completely."""
    precision, folder, *models = sys.argv[1:]
    for model in models:
        run = Path(folder) / f"{model}-{precision}"
        train = ("train", f"model={model}", f"precision={precision}", f"run_dir={run}", *SETTINGS)
        spent = []
        for command in (train, ("verify", str(run)), ("verify", str(run), "--complete")):
            before = cpu_seconds()
            subprocess.run([sys.executable, "-m", f"harness.{command[0]}", *command[1:]])
            spent.append(f"{cpu_seconds() - before:.1f}")
        found = certificate.read(run)
        if found is not None and found.score is not None:
            print(model, *spent, f"{found.score.difference:.2g}", found.words, flush=True)


if __name__ == "__main__":
    main()
