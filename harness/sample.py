"""Sample text from a trained model.

python -m harness.sample RUN --prompt "ROMEO:" --tokens 200 --temperature 0.8
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError

# What only drawing has a use for, and what only beams have.
DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
BEAMS = ("length_penalty",)


def main() -> None:
    """The command."""
    run_tool(_sample)


def _sample() -> int:
    arguments = _parse()

    from harness.sampling.sample_run import sample_run

    return sample_run(arguments)


def _parse() -> argparse.Namespace:
    parser = Parser(prog="python -m harness.sample", description="Sample text from a run.")
    parser.add_run()
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="the text to go on from (a line break)")
    prompt.add_argument("--prompt-file", type=Path, metavar="FILE", help="read it from a file")
    parser.add_argument("--tokens", type=int, default=200, help="how many to add at most (200)")
    parser.add_argument("--stop", metavar="TEXT", help="end a text once it says this")
    parser.add_argument("--num-samples", type=int, default=1, help="how many texts (1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text (0)")
    parser.add_argument(
        "--mask-unused",
        action="store_true",
        help="never an id that the train split does not have: padding, special tokens, rare pieces",
    )
    drawing = parser.add_argument_group("drawing")
    drawing.add_argument("--temperature", type=float, help="0 is greedy (1.0)")
    drawing.add_argument("--top-k", type=int, help="among the k likeliest only")
    drawing.add_argument("--top-p", type=float, help="among the likeliest that make up p only")
    drawing.add_argument(
        "--min-p", type=float, help="among those at least p times as likely as the likeliest"
    )
    drawing.add_argument(
        "--repetition-penalty",
        type=float,
        help="divide the logits of what was said before by this (1.0)",
    )
    beams = parser.add_argument_group("beam search, instead of drawing")
    beams.add_argument("--beams", type=int, help="how many texts are followed")
    beams.add_argument(
        "--length-penalty",
        type=float,
        metavar="ALPHA",
        help="with --stop: rank by log p / ((5 + tokens) / 6)^ALPHA (0: by log p)",
    )
    arguments = parser.parse({"tokens": 1, "num_samples": 1, "beams": 1, "seed": 0})
    if arguments.stop == "":
        raise UsageError("--stop '' is no text")
    if arguments.beams and arguments.num_samples > arguments.beams:
        raise UsageError(f"--num-samples {arguments.num_samples} exceeds --beams {arguments.beams}")
    for name in DRAWING if arguments.beams else BEAMS:
        if getattr(arguments, name) is not None:
            why = "with --beams: nothing is drawn" if arguments.beams else "without --beams"
            raise UsageError(f"--{name.replace('_', '-')} has no meaning {why}")
    alpha = arguments.length_penalty
    if alpha is not None and not 0 <= alpha < math.inf:
        raise UsageError(f"--length-penalty {alpha:g} must be 0 or above")
    if alpha is not None and arguments.stop is None:
        raise UsageError(
            "--length-penalty has no meaning without --stop: all texts are equally long"
        )
    return arguments


if __name__ == "__main__":
    main()
