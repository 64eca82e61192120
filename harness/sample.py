"""Sample text from a trained model.

python -m harness.sample RUN --prompt "ROMEO:" --tokens 200 --temperature 0.8
python -m harness.sample RUN --novelty
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError

SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
BEAMS_ONLY = ("length_penalty",)
MOST_ALPHA = 30
NOVELTY = 32  # bytes of a passage that is copied rather than a common phrase


@command
def main() -> int:
    """Print the sampled texts."""
    parser = Parser(prog="python -m harness.sample", description="Sample text from a run.")
    parser.add_run()
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="the text to continue (a line break)")
    prompt.add_argument(
        "--prompt-file", type=Path, metavar="FILE", help="read it from a file or a pipe"
    )
    parser.add_argument("--tokens", type=int, default=200, help="most new tokens (200)")
    parser.add_argument("--stop", metavar="TEXT", help="end a sample when it contains this")
    parser.add_argument("--num-samples", type=int, default=1, help="number of samples (1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text (0)")
    parser.add_argument(
        "--mask-unused",
        action="store_true",
        help="never sample ids that do not occur in the train split (padding, special tokens, …)",
    )
    parser.add_argument(
        "--novelty",
        type=int,
        nargs="?",
        const=NOVELTY,
        metavar="BYTES",
        help=f"mark by ⟦…⟧ what train has, too, in passages of this length or more ({NOVELTY})",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="make one function of a token's step first, which takes half a minute on a CPU: for "
        "many tokens or samples of a small model (on a GPU a CUDA graph, which is untried yet)",
    )
    parser.add_data_path()
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--temperature", type=float, help="0 is greedy (1.0)")
    sampling.add_argument("--top-k", type=int, help="only the k most likely tokens")
    sampling.add_argument(
        "--top-p", type=float, help="only the most likely tokens that reach p together"
    )
    sampling.add_argument(
        "--min-p", type=float, help="only tokens at least p times as likely as the most likely"
    )
    sampling.add_argument(
        "--repetition-penalty",
        type=float,
        help="divide the logits of tokens that occurred before by this (1.0)",
    )
    beams = parser.add_argument_group("beam search, instead of sampling")
    beams.add_argument("--beams", type=int, help="number of beams")
    beams.add_argument(
        "--length-penalty",
        type=float,
        metavar="ALPHA",
        help="with --stop: rank by log p / ((5 + tokens) / 6)^ALPHA (0: by log p)",
    )
    arguments = parser.parse({"tokens": 1, "num_samples": 1, "beams": 1, "seed": 0, "novelty": 1})
    if arguments.data_path and not arguments.novelty:
        raise UsageError("--data-path has no meaning without --novelty: the text is not read")
    if arguments.compile and arguments.beams:
        raise UsageError("--compile has no meaning with --beams: they change places at every token")
    if arguments.stop == "":
        raise UsageError("--stop '' is empty")
    if arguments.beams and arguments.num_samples > arguments.beams:
        raise UsageError(f"--num-samples {arguments.num_samples} exceeds --beams {arguments.beams}")
    for name in SAMPLING_ONLY if arguments.beams else BEAMS_ONLY:
        if getattr(arguments, name) is not None:
            why = "with --beams: nothing is sampled" if arguments.beams else "without --beams"
            raise UsageError(f"--{name.replace('_', '-')} has no meaning {why}")
    alpha = arguments.length_penalty
    if alpha is not None and not 0 <= alpha <= MOST_ALPHA:
        raise UsageError(f"--length-penalty {alpha:g} must lie between 0 and {MOST_ALPHA}")
    if alpha is not None and arguments.stop is None:
        raise UsageError(
            "--length-penalty has no meaning without --stop: all texts have the same length"
        )

    from harness.sampling.sample_run import sample_run

    return sample_run(arguments)


if __name__ == "__main__":
    main()
