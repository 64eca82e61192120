"""Text from a trained model.

python -m harness.sample RUN --prompt "ROMEO:" --tokens 200 --temperature 0.8
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import Parser, run_tool
from harness.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from harness.decode import Choice
    from harness.load import Run

NO_PROMPT = "\n"
BETWEEN = f"\n{'-' * 40}\n"
# What only drawing has a use for, and what only beams have.
DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
BEAMS = ("length_penalty",)


def main() -> int:
    """Print the samples on stdout, the prompt included: one alone as it comes."""
    arguments = _parse()
    from harness.load import load_run

    choice = None if arguments.beams else _choice(arguments)
    text = _prompt_file(arguments.prompt_file) if arguments.prompt_file else arguments.prompt
    run = load_run(arguments.run, arguments.checkpoint, arguments.device, arguments.trust, "fp32")
    counts = run.folder.read_counts(run.tokenizer.vocab_size)
    allowed_V = _seen(run, counts) if arguments.mask_unused else None
    prompt = _prompt(text, "--prompt-file" if arguments.prompt_file else "--prompt", run, counts)
    block_size = run.model.block_size
    if block_size is not None and len(prompt) > block_size:
        print(
            f"note: the prompt has {len(prompt)} tokens; the model sees its last {block_size}",
            file=sys.stderr,
        )
    if choice is None:
        texts = _search(run, prompt, allowed_V, arguments)
    else:
        texts = _draw(run, prompt, allowed_V, arguments, choice)
    print(BETWEEN.join(texts))
    return 0


def _draw(
    run: Run,
    prompt: list[int],
    allowed_V: torch.Tensor | None,
    arguments: argparse.Namespace,
    choice: Choice,
) -> list[str]:
    """The texts; of one alone only its end: the rest is on stdout already."""
    import torch

    from harness.decode import stream
    from harness.transcript import Transcript

    alone = arguments.num_samples == 1
    rows = [Transcript(run.tokenizer, prompt, arguments.stop) for _ in range(arguments.num_samples)]
    if alone:
        print(rows[0].text, end="", flush=True)
    prompt_BT = torch.tensor([prompt] * len(rows), device=run.compute.device)
    seed = arguments.seed or 0
    for next_B1 in stream(run.model, prompt_BT, arguments.tokens, choice, seed, allowed_V):
        for row, (id_,) in zip(rows, next_B1.tolist(), strict=True):
            new = "" if row.ended else row.take([id_])
            if alone:
                print(new, end="", flush=True)
        if all(row.ended for row in rows):
            break
    rests = ["" if row.ended else row.rest() for row in rows]
    return rests if alone else [row.text for row in rows]


def _search(
    run: Run, prompt: list[int], allowed_V: torch.Tensor | None, arguments: argparse.Namespace
) -> list[str]:
    import torch

    from harness.beams import beam_search
    from harness.transcript import Transcript

    def said(added: list[int]) -> Transcript:
        row = Transcript(run.tokenizer, prompt, arguments.stop)
        row.take(added)
        return row

    found = beam_search(
        run.model,
        torch.tensor(prompt, device=run.compute.device),
        arguments.tokens,
        arguments.beams,
        alpha=arguments.length_penalty or 0.0,
        ends=lambda added: said(added).ended,
        allowed_V=allowed_V,
    )
    rows = [said(beam.added) for beam in found[: arguments.num_samples]]
    for row in rows:
        if not row.ended:
            row.rest()
    return [row.text for row in rows]


def _prompt(
    text: str | None, option: str, run: Run, counts: NDArray[np.integer] | None
) -> list[int]:
    """The ids to go on from: never none."""
    from zoo_tokenizers import TokenizerError

    try:
        ids = run.tokenizer.encode(NO_PROMPT if text is None else text).tolist()
    except TokenizerError as error:
        if text is not None:
            raise UsageError(f"{option}: {error}") from error
        ids = []
    if ids:
        return list(ids)
    if text is not None:
        raise UsageError(f"{option} {repr(text)[:60]} has no tokens: give a text to go on from")
    if counts is None:
        raise UsageError("to this tokenizer a line break is nothing: give a --prompt")
    commonest = int(counts.argmax())
    print(
        "note: no prompt, and to this tokenizer a line break is nothing; the text begins with the "
        f"commonest token of train, {run.tokenizer.decode([commonest])!r}",
        file=sys.stderr,
    )
    return [commonest]


def _prompt_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"--prompt-file {path} can't be read: {error.strerror}") from error


def _seen(run: Run, counts: NDArray[np.integer] | None) -> torch.Tensor:
    """(V,): which ids the train split has."""
    import torch

    if counts is None:
        raise UsageError(
            f"--mask-unused needs {run.folder.counts}, which runs of older versions don't have"
        )
    return torch.from_numpy(counts > 0)


def _choice(arguments: argparse.Namespace) -> Choice:
    from harness.decode import Choice

    given = {name: getattr(arguments, name) for name in DRAWING if name != "seed"}
    try:
        return Choice(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        name, equals, rest = str(error).partition("=")
        raise UsageError(f"--{name.replace('_', '-')}{equals}{rest}") from error


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
    run_tool(main)
