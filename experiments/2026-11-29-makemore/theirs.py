"""makemore.py itself, trained on the lectures' train names and scored like a run of the harness.

    python theirs.py makemore.py names.txt --type gru --max-steps 5000

What follows the two files is given to makemore.py, which is run as it is: its split is held to the
lectures' (its permutation becomes the identity), and SummaryWriter to nothing. At the end the last
weights are scored on all validation names: nats per prediction, each name's end among them.
"""

from __future__ import annotations

import random
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F


def main() -> None:
    source, names_file, *arguments = sys.argv[1:]
    names = Path(names_file).read_text().split()
    random.Random(42).shuffle(names)
    first, second = int(0.8 * len(names)), int(0.9 * len(names))
    train, val = names[:first], names[first:second]
    silent = types.ModuleType("torch.utils.tensorboard")
    silent.SummaryWriter = lambda **_: types.SimpleNamespace(  # type: ignore[attr-defined]
        add_scalar=lambda *_: None, flush=lambda: None
    )
    sys.modules["torch.utils.tensorboard"] = silent
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "names.txt"
        file.write_text("\n".join([*train, *val[:1000]]))  # it takes the last 1000 for its test
        permutation = torch.randperm
        torch.randperm = lambda n, **_: torch.arange(n)
        sys.argv = [source, "-i", str(file), "-o", folder, "--num-workers", "0", *arguments]
        space: dict[str, Any] = {"__name__": "__main__"}
        # A module of its own name, for dataclasses.
        exec(compile(Path(source).read_text(), source, "exec"), space)
        torch.randperm = permutation
    model, kept = space["model"].eval(), space["train_dataset"]
    assert kept.words == train
    scored = space["CharDataset"](val, sorted(kept.stoi), kept.max_word_length)
    nats, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(scored), 500):
            rows = range(start, min(start + 500, len(scored)))
            x_BT, y_BT = map(torch.stack, zip(*(scored[row] for row in rows), strict=True))
            logits_BTV, _ = model(x_BT)
            nats += F.cross_entropy(
                logits_BTV.flatten(0, 1), y_BT.flatten(), ignore_index=-1, reduction="sum"
            ).item()
            count += int((y_BT >= 0).sum())
    size = sum(weight.numel() for weight in model.parameters())
    words = f"parameters={size} predictions={count} val={nats / count:.4f}"
    print("RESULT", *arguments, words)


if __name__ == "__main__":
    main()
