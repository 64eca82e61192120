"""Does this machine compute what it should, and what is it good for?

    python -m harness.doctor                         every architecture, in every precision
    python -m harness.doctor gpt --precision bf16    one of them
    python -m harness.doctor gpt --compile           also compiled

Loss, gradients and 20 steps are compared with float64 on the CPU, and every operator by itself.
"""

from __future__ import annotations

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.common.values import require_choice
from harness.config.settings import PRECISIONS


@command
def main() -> int:
    """Print what was found; 0 if all is right, 1 if something is not."""
    parser = Parser(prog="python -m harness.doctor", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="files of conf/model (all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    parser.add_argument(
        "--precision", action="append", choices=PRECISIONS[1:], help="one of them (all)"
    )
    parser.add_argument("--batch-size", action="append", type=int, help="one or more (1 and 4)")
    parser.add_argument("--compile", action="store_true", help="also compiled, which takes minutes")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse({})
    models = [name.removeprefix("model=") for name in options.models]  # as harness.train has it
    for model in models:
        require_choice(
            "model", model, sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
        )
    if any(size < 1 for size in options.batch_size or ()):
        raise UsageError("--batch-size must be at least 1")

    from harness.diagnostics.doctor.examine import Plan, examine

    plan = Plan(
        models=models,
        device=options.device,
        precisions=options.precision or PRECISIONS[1:],
        batch_sizes=options.batch_size or (1, 4),
        compiled=(False, True) if options.compile else (False,),
    )
    return examine(plan, options.json)


if __name__ == "__main__":
    main()
