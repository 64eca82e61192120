"""The exact score of a finished run on a split.

python -m harness.evaluate RUN --split test [--stride N] [--strided-inference]
"""

from __future__ import annotations

from harness.cli import Parser, run_tool
from harness.config import PRECISIONS
from harness.errors import UsageError


def main() -> int:
    """Print the score on stdout, as a table or as JSON."""
    parser = Parser(
        prog="python -m harness.evaluate", description="Score a run on a whole split, exactly."
    )
    parser.add_run()
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--stride", type=int, help="tokens the window moves (half a window)")
    parser.add_argument(
        "--strided-inference",
        action="store_true",
        help="for models with patches: two passes half a patch apart, the better half of each",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="windows at a time (64)")
    parser.add_argument("--precision", choices=PRECISIONS, help="instead of the run's own")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse({"batch_size": 1})

    from tqdm import tqdm

    from harness.load import load_run
    from harness.loggers import strict_json
    from harness.metrics import resolve_stride, score_split

    run = load_run(
        arguments.run, arguments.checkpoint, arguments.device, arguments.trust, arguments.precision
    )
    stride = run.settings.eval.stride if arguments.stride is None else arguments.stride
    if run.model.block_size is None and arguments.stride is not None:
        raise UsageError(
            f"--stride has no meaning for {run.settings.names.model}: it is scored in one "
            "streaming pass"
        )
    strided = arguments.strided_inference
    if strided and run.model.patch_size is None:
        raise UsageError(
            f"--strided-inference has no meaning for {run.settings.names.model}: it has no patches"
        )
    try:
        if run.model.block_size is not None:
            resolve_stride(run.model.block_size, stride, run.model.patch_size if strided else None)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    split = getattr(run.dataset(), arguments.split)
    if split is None:
        raise UsageError(
            f"data.split={run.settings.data['split']} leaves no {arguments.split} split"
        )

    def on_batch(tokens: int) -> None:
        bar.update(tokens)

    total = (len(split.ids) - 1) * (2 if strided else 1)
    with tqdm(total=total, unit=" tokens", unit_scale=True, disable=None) as bar:
        score = score_split(
            run.model,
            split,
            run.tokenizer,
            run.compute,
            stride,
            arguments.batch_size,
            on_batch,
            strided=strided,
            batch_statistics=run.settings.train.batch_norm == "batch",
        )
    result = {"run": str(run.folder.path), "split": arguments.split, "step": run.step}
    result |= score.summary() | {"strided_inference": strided}
    result |= {"precision": run.compute.precision}
    if arguments.json:
        print(strict_json(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value if value is not None else '–'}")
    return 0


if __name__ == "__main__":
    run_tool(main)
