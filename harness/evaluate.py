"""Score a finished run on a whole split, or on other texts; optionally measure its calibration.

python -m harness.evaluate RUN --split test [--stride N] [--strided-inference] [--calibration]
python -m harness.evaluate RUN --text NAME=FILE … [--tokens out.tsv]
python -m harness.evaluate RUN --all-checkpoints           how the score went, by validation
python -m harness.evaluate RUN --average last:5            the mean of the last weights
"""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError
from harness.config.settings import PRECISIONS


@command
def main() -> int:
    """Print the scores."""
    parser = Parser(
        prog="python -m harness.evaluate",
        description="Score a run on every token of a split, or of texts.",
    )
    parser.add_run()
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="test, but val of a candidate of a search or a sweep over variants; test of those is "
        "logged in their folders",
    )
    parser.add_data_path()
    parser.add_argument(
        "--text",
        nargs="+",
        action="extend",
        metavar="NAME=FILE",
        help="texts of your own in place of a split, each scored by itself",
    )
    parser.add_argument(
        "--tokens", type=Path, metavar="FILE", help="also write the loss of every token there (TSV)"
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="tokens of a window, if not as trained (block_size)",
    )
    parser.add_argument("--stride", type=int, help="tokens between two windows (half a window)")
    parser.add_argument(
        "--strided-inference",
        action="store_true",
        help="for models with patches: two passes half a patch apart; keep the better half of each",
    )
    parser.add_argument(
        "--calibration",
        action="store_true",
        help="also write calibration.html and .json to the run's folder: reliability, the best "
        "temperature, loss by token frequency, surprising passages",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--all-checkpoints",
        action="store_true",
        help="each checkpoint that was kept (checkpoint.keep), on val",
    )
    which.add_argument(
        "--average",
        metavar="last:N",
        help="the mean of the weights of the last N checkpoints that were kept, on val",
    )
    parser.add_argument("--batch-size", type=int, help="windows per batch (eval.batch_size)")
    parser.add_argument("--precision", choices=PRECISIONS, help="instead of the run's own")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse({"batch_size": 1, "context": 1})
    for name in ("split", "data_path", "calibration", "all_checkpoints", "average"):
        if arguments.text and getattr(arguments, name):
            raise UsageError(f"--{name.replace('_', '-')} has no meaning with --text")
    if arguments.tokens and arguments.calibration:
        raise UsageError("--tokens has no meaning with --calibration, whose page shows the losses")
    if arguments.tokens and arguments.all_checkpoints:
        raise UsageError("--tokens is for one checkpoint: choose it by --checkpoint STEP")
    several = arguments.all_checkpoints or arguments.average is not None
    if several and (arguments.calibration or arguments.context or arguments.checkpoint != "best"):
        raise UsageError(
            "--all-checkpoints and --average go without --calibration, --context and --checkpoint"
        )
    arguments.text = _by_name(arguments.text or [])

    from harness.report.records.runs import read_run
    from harness.report.records.selection import log_reading, split_to_show

    if not arguments.text:
        record = read_run(arguments.run, with_metrics=False, with_config=False)
        # How many are averaged, and which checkpoint is used, is a choice: test is not to see it.
        arguments.split = arguments.split or ("val" if several else split_to_show([record]))
    if arguments.calibration and arguments.split == "val":
        raise UsageError(
            "--calibration fits its temperature on val, so val can't be its test: "
            "choose --split test or train"
        )

    if arguments.split == "test":
        log_reading(
            [record], shlex.join(["harness.evaluate", str(arguments.run), "--split", "test"])
        )

    from harness.evaluation.evaluate_run import evaluate_run
    from harness.report.calibrate import calibrate

    return evaluate_run(arguments, calibrate)


def _by_name(texts: list[str]) -> dict[str, str]:
    """The files by their names, from NAME=FILE."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name.isprintable() and name and equals and file):
            raise UsageError(f"--text {text} should be NAME=FILE")
        if name in found:
            raise UsageError(f"--text: two texts have the name {name}")
        found[name] = file
    return found


if __name__ == "__main__":
    main()
