"""What a certificate costs: seconds of a training of 20 steps, of `harness.verify` with a sample,
and of `harness.verify --complete`, for models of conf/model and types of transformers.

python experiments/2026-11-28-referee/cost.py FOLDER NAME… -- SETTING…
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from harness.runs import certificate

SIZES = {"hidden_size": 32, "num_hidden_layers": 2}
HEADS = SIZES | {"num_attention_heads": 4, "intermediate_size": 48}
GROUPED = HEADS | {"num_key_value_heads": 2}
TYPES = {
    "gpt2": SIZES | {"n_head": 4},
    "llama": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "gpt_neox": HEADS,
    "gemma3_text": GROUPED | {"head_dim": 8, "num_hidden_layers": 6, "sliding_window": 5},
    "mamba2": SIZES
    | {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mixtral": GROUPED | {"num_local_experts": 4},
    "rwkv": SIZES,  # without a cache
}


def settings(name: str) -> list[str]:
    """Of a file in conf/model, or hf:TYPE."""
    if not name.startswith("hf:"):
        return [f"model={name}"]
    model_type = name.removeprefix("hf:")
    given = {f"++model.config.{key}={value}" for key, value in TYPES[model_type].items()}
    return ["model=hf", f"model.config.model_type={model_type}", *sorted(given)]


def spent(command: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock, and of the processors, of a command of the harness."""

    def cpu_seconds() -> float:
        of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return of_children.ru_utime + of_children.ru_stime

    clock, before = perf_counter(), cpu_seconds()
    subprocess.run([sys.executable, "-m", f"harness.{command[0]}", *command[1:]])
    return perf_counter() - clock, cpu_seconds() - before


def main() -> None:
    """Print a row of a table for each model."""
    between = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    folder, *names = sys.argv[1:between]
    common = ["train.steps=20", "eval.every=20", "eval.sample_tokens=0", *sys.argv[between + 1 :]]
    rows = []
    for name in names:
        run = Path(folder) / name.replace(":", "-")
        times = [
            spent(["train", *settings(name), f"run_dir={run}", *common]),
            spent(["verify", str(run)]),
            spent(["verify", str(run), "--complete"]),
        ]
        found = certificate.read(run)
        if found is None or found.score is None:
            rows.append(f"| {name} | no certificate |")
            continue
        words = {
            result: ", ".join(check.name for check in found.checks if check.result == result)
            for result in ("failed", "sampled", "not applicable", "unknown")
        }
        cells = (
            *(name, f"{found.parameters:,}", *(f"{clock:.0f} ({cpu:.0f})" for clock, cpu in times)),
            *(f"{found.score.tokens:,} of {found.score.predictions:,}",),
            *(f"{found.score.difference:.1e}", found.words, *words.values()),
        )
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
