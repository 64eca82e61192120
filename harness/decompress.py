"""Read back a file that harness.compress wrote.

python -m harness.decompress RUN FILE.zoo [--out FILE]
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command


@command
def main() -> int:
    """Write the file."""
    parser = Parser(
        prog="python -m harness.decompress",
        description="Read back a file that harness.compress wrote with the same run.",
    )
    parser.add_run()
    parser.add_argument("file", type=Path, help="the compressed file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (without .zoo)")
    arguments = parser.parse({})

    from harness.compression.files import decompress_file

    return decompress_file(arguments)


if __name__ == "__main__":
    main()
