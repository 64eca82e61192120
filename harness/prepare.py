"""Encode a corpus and describe how the tokenizer splits it.

Optional: training encodes what it needs.

python -m harness.prepare data=tiny_shakespeare tokenizer=p50k
python -m harness.prepare --out FOLDER data=stream data.path=SHARDS tokenizer=gpt2   token shards
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.hydra_app import compose, run_hydra
from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the report on stdout."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UsageError("harness.prepare takes one corpus and one tokenizer: leave out -m")
    settings = read_settings(cfg)

    from harness.data.describe import describe_data

    print(describe_data(settings))
    return 0


def write() -> int:
    """Encode a stream into token shards; one line on stdout."""
    cores = len(os.sched_getaffinity(0))
    parser = Parser(
        prog="python -m harness.prepare --out FOLDER",
        description="Encode a stream (data=stream) into token shards, which training reads in its "
        "place. A call that was stopped or killed is gone on with by the same command.",
    )
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="as for harness.train")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the shards")
    parser.add_argument(
        "--workers", type=int, default=cores, help="processes that encode, a shard each (all cores)"
    )
    options = parser.parse_intermixed_args()
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers} must be at least 1")
    settings = read_settings(compose(options.settings))

    from harness.data.write_tokens import write_tokens

    print(write_tokens(settings, options.out, options.workers))
    return 0


def main() -> None:
    """Run the command."""
    if any(word.partition("=")[0] == "--out" for word in sys.argv):
        run_tool(write)
    run_hydra(task, sweeps=False)


if __name__ == "__main__":
    main()
