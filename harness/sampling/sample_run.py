"""Samples from a finished run."""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from numpy.typing import NDArray

from harness.common.errors import UsageError
from harness.common.outside import read_text
from harness.common.text import visible, visible_line
from harness.runs.load import Run, load_run
from harness.sampling.beams import beam_search
from harness.sampling.copied import mark_copied
from harness.sampling.decode import DEFAULT_PROMPT, SamplingParams, encode_prompt, stream
from harness.sampling.fixed_step import FixedStep, require_fixed_step
from harness.sampling.transcript import Transcript
from zoo_tokenizers import TokenizerError

PARAMS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
SEPARATOR = f"\n{'-' * 40}\n"


def sample_run(arguments: argparse.Namespace) -> int:
    """Print the samples with their prompt on stdout, a single one as it is generated. arguments: of
    harness.sample."""
    params = None if arguments.beams else _params(arguments)
    file = arguments.prompt_file
    text = read_text(file, "--prompt-file ") if file else arguments.prompt
    run = load_run(
        arguments.run, arguments.checkpoint, arguments.device, arguments.trust, "fp32",
        arguments.checkpoint_dir,
    )  # fmt: skip
    if arguments.compile:
        require_fixed_step(run.model)
    counts = run.folder.read_counts(run.tokenizer.vocab_size)
    allowed_V = _seen_ids(run, counts) if arguments.mask_unused else None
    prompt = _prompt(text, "--prompt-file" if file else "--prompt", run, counts)
    dataset = run.dataset(arguments.data_path) if arguments.novelty else None
    block_size = run.model.block_size
    if block_size is not None and len(prompt) > block_size:
        print(
            f"note: the prompt has {len(prompt)} tokens; the model sees its last {block_size}",
            file=sys.stderr,
        )
    if params is None:
        texts = _beam_search(run, prompt, allowed_V, arguments)
    else:
        texts = _draw(run, prompt, allowed_V, arguments, params)
    line = None
    if dataset is not None:
        begins = len(Transcript(run.tokenizer, prompt).text)
        texts, line = mark_copied(texts, begins, dataset, arguments.novelty)
    print(_shown(SEPARATOR.join(texts)))
    if line:
        print(visible_line(line), file=sys.stderr)
    return 0


def _draw(
    run: Run,
    prompt: list[int],
    allowed_V: torch.Tensor | None,
    arguments: argparse.Namespace,
    params: SamplingParams,
) -> list[str]:
    """The texts; of a single one only what is not on stdout yet, unless it is to be marked."""
    step = None
    if arguments.compile:
        print(
            "note: making one function of a token's step: half a minute on a CPU", file=sys.stderr
        )
        step = FixedStep(run.model, arguments.num_samples)
    is_single = arguments.num_samples == 1 and not arguments.novelty
    rows = [Transcript(run.tokenizer, prompt, arguments.stop) for _ in range(arguments.num_samples)]
    if is_single:
        print(_shown(rows[0].text), end="", flush=True)
    prompt_BT = torch.tensor([prompt] * len(rows), device=run.compute.device)
    seed = arguments.seed or 0
    for next_B1 in stream(run.model, prompt_BT, arguments.tokens, params, seed, allowed_V, step):
        for row, (id_,) in zip(rows, next_B1.tolist(), strict=True):
            new = "" if row.ended else row.add([id_])
            if is_single:
                print(_shown(new), end="", flush=True)
        if all(row.ended for row in rows):
            break
    rests = ["" if row.ended else row.flush() for row in rows]
    return rests if is_single else [row.text for row in rows]


def _shown(text: str) -> str:
    """The text as it is for a file or a pipe; without control characters for a terminal."""
    return visible(text) if sys.stdout.isatty() else text


def _beam_search(
    run: Run, prompt: list[int], allowed_V: torch.Tensor | None, arguments: argparse.Namespace
) -> list[str]:
    def decode(added: list[int]) -> Transcript:
        row = Transcript(run.tokenizer, prompt, arguments.stop)
        row.add(added)
        return row

    found = beam_search(
        run.model,
        torch.tensor(prompt, device=run.compute.device),
        arguments.tokens,
        arguments.beams,
        alpha=arguments.length_penalty or 0.0,
        ends=lambda added: decode(added).ended,
        allowed_V=allowed_V,
    )
    rows = [decode(beam.added) for beam in found[: arguments.num_samples]]
    for row in rows:
        if not row.ended:
            row.flush()
    return [row.text for row in rows]


def _prompt(
    text: str | None, option: str, run: Run, counts: NDArray[np.integer] | None
) -> list[int]:
    """The prompt's ids, at least one."""
    try:
        ids = encode_prompt(run.tokenizer, DEFAULT_PROMPT if text is None else text)
    except TokenizerError as error:
        raise UsageError(f"{option}: {error}") from error
    if len(ids):
        return list(ids.tolist())
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


def _seen_ids(run: Run, counts: NDArray[np.integer] | None) -> torch.Tensor:
    """(V,): whether the train split has each id."""
    if counts is None:
        raise UsageError(
            f"--mask-unused needs {run.folder.counts}, which runs of older versions don't have"
        )
    return torch.from_numpy(counts > 0)


def _params(arguments: argparse.Namespace) -> SamplingParams:
    given = {name: getattr(arguments, name) for name in PARAMS}
    try:
        return SamplingParams(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        name, equals, rest = str(error).partition("=")
        raise UsageError(f"--{name.replace('_', '-')}{equals}{rest}") from error
