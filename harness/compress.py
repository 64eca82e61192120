"""Compress a file with a trained model: the proof that its score needs no future.

python -m harness.compress RUN FILE [--out FILE.zoo]
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command


@command
def main() -> int:
    """Write the file."""
    parser = Parser(
        prog="python -m harness.compress", description="Compress a file with a run's model."
    )
    parser.add_run()
    parser.add_argument("file", type=Path, help="the text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (FILE.zoo)")
    arguments = parser.parse({})

    from harness.compression.files import compress_file

    return compress_file(arguments)


if __name__ == "__main__":
    main()
