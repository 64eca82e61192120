"""Files compressed and read back, and the result in words."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from harness.common.errors import UsageError
from harness.common.files import atomic_write
from harness.common.interrupt import ending_at_once
from harness.common.outside import open_regular
from harness.compression import codec
from harness.compute.device import make_deterministic
from harness.runs.load import Run, load_run

SUFFIX = ".zoo"
# What the header, whole bytes and tokens one at a time may cost beyond the score.
ALLOWED_SHARE, ALLOWED_BYTES = 0.001, 64


def compress_file(arguments: argparse.Namespace) -> int:
    """Write FILE.zoo and print its size beside the score of the same text. arguments: of
    harness.compress."""
    content, target = _ends(arguments, arguments.file.name + SUFFIX)
    run = _load(arguments)
    packed = _write(target, run, codec.compress, content)
    with ending_at_once():
        promised = codec.nats_by_score(run, content) / math.log(2) / 8
    print(f"{len(content):>12,} bytes of text")
    for size, what in ((len(packed), "compressed"), (promised, "by its score")):
        rate = f"  {size * 8 / len(content):.4f} bits per byte" if content else ""
        print(f"{size:>12,.0f} bytes {f'{what:<12}' if rate else what}{rate}")
    print(f"{target} written")
    if len(packed) > promised * (1 + ALLOWED_SHARE) + ALLOWED_BYTES:
        print(
            f"The file is {len(packed) - promised:,.0f} bytes larger than the score says: the "
            "score can't be had from the past alone. This model looks ahead, or computes other "
            "numbers one token at a time."
        )
        return 1
    return 0


def decompress_file(arguments: argparse.Namespace) -> int:
    """Write the text again. arguments: of harness.decompress."""
    name = arguments.file.name
    content, target = _ends(arguments, name.removesuffix(SUFFIX) if name != SUFFIX else name)
    _write(target, _load(arguments), codec.decompress, content)
    print(f"{target} written")
    return 0


def _ends(arguments: argparse.Namespace, name: str) -> tuple[bytes, Path]:
    """What is read, and the file to write, which must not exist."""
    with open_regular(arguments.file) as file:
        content = file.read()
    target = arguments.out or arguments.file.with_name(name)
    if target.exists():
        raise UsageError(f"{target} exists already: choose another name with --out")
    return content, target


def _load(arguments: argparse.Namespace) -> Run:
    run = load_run(
        arguments.run, arguments.checkpoint, arguments.device, arguments.trust,
        checkpoint_dir=arguments.checkpoint_dir,
    )  # fmt: skip
    if run.settings.train.batch_norm == "batch":
        raise UsageError(
            f"{arguments.run} was trained with batch_norm=batch, which is not causal: a text can't "
            "be decoded token by token"
        )
    if not run.tokenizer.lossless:
        raise UsageError(
            f"tokenizer {run.settings.names.tokenizer} changes the text, so it could not come back"
        )
    if run.tokenizer.marker is not None:
        raise UsageError(
            f"{arguments.run} was trained on documents, and a file is compressed as one text"
        )
    make_deterministic()
    return run


def _write(
    target: Path, run: Run, code: Callable[[Run, bytes, codec.OnToken], bytes], content: bytes
) -> bytes:
    bar = tqdm(unit=" tokens", unit_scale=True, disable=None, file=sys.stderr)
    with bar, ending_at_once():  # nothing is written yet
        result = code(run, content, bar.update)
    with atomic_write(target) as file:
        file.write(result)
    return result
