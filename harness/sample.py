"""Text from a trained model.

python -m harness.sample RUN --prompt "ROMEO:" --tokens 200 --temperature 0.8
"""

from __future__ import annotations

import argparse
import sys

from harness.cli import Parser, run_tool
from harness.errors import UsageError


def main() -> int:
    """Print the samples on stdout, the prompt included."""
    arguments = _parse()
    import torch

    from harness.decode import Choice, beam_search, generate
    from harness.load import load_run, printable
    from zoo_tokenizers import TokenizerError

    try:
        temperature = 1.0 if arguments.temperature is None else arguments.temperature
        choice = Choice(temperature, arguments.top_k, arguments.top_p)
    except ValueError as error:
        raise UsageError(f"--{str(error).replace('top_', 'top-')}") from error
    run = load_run(arguments.run, arguments.checkpoint, arguments.device, arguments.trust, "fp32")
    try:
        prompt_T = torch.from_numpy(run.tokenizer.encode(arguments.prompt).astype("int64"))
    except TokenizerError as error:
        raise UsageError(f"--prompt: {error}") from error
    if not len(prompt_T):
        raise UsageError(f"--prompt {arguments.prompt!r} has no tokens: give a text to go on from")
    block_size = run.model.block_size
    if block_size is not None and len(prompt_T) > block_size:
        print(
            f"note: the prompt has {len(prompt_T)} tokens; the model sees its last {block_size}",
            file=sys.stderr,
        )
    prompt_T = prompt_T.to(run.compute.device)
    if arguments.beams:
        ids_BT = beam_search(run.model, prompt_T, arguments.tokens, arguments.beams)
        ids_BT = ids_BT[: arguments.num_samples]
    else:
        prompt_BT = prompt_T.expand(arguments.num_samples, -1)
        ids_BT = generate(run.model, prompt_BT, arguments.tokens, choice, arguments.seed or 0)
    texts = [printable(run.tokenizer.decode(row)) for row in ids_BT.tolist()]
    print(f"\n{'-' * 40}\n".join(texts))
    return 0


def _parse() -> argparse.Namespace:
    parser = Parser(prog="python -m harness.sample", description="Sample text from a run.")
    parser.add_run()
    parser.add_argument("--prompt", default="\n", help="the text to go on from (a line break)")
    parser.add_argument("--tokens", type=int, default=200, help="how many to add (200)")
    parser.add_argument("--temperature", type=float, help="0 is greedy (1.0)")
    parser.add_argument("--top-k", type=int, help="draw among the k likeliest only")
    parser.add_argument("--top-p", type=float, help="draw among the likeliest that make up p only")
    parser.add_argument("--num-samples", type=int, default=1, help="how many texts (1)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text (0)")
    parser.add_argument("--beams", type=int, help="beam search of this width instead of drawing")
    arguments = parser.parse({"tokens": 1, "num_samples": 1, "beams": 1, "seed": 0})
    if arguments.beams:
        if arguments.num_samples > arguments.beams:
            raise UsageError(
                f"--num-samples {arguments.num_samples} exceeds --beams {arguments.beams}"
            )
        for name in ("temperature", "top_k", "top_p", "seed"):
            if getattr(arguments, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} has no meaning with --beams: nothing is drawn"
                )
    return arguments


if __name__ == "__main__":
    run_tool(main)
