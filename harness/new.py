"""Write the starting files of a new model, which run as they are.

python -m harness.new NAME
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command


@command
def main() -> int:
    """Write the files and print what to type next."""
    parser = Parser(
        prog="python -m harness.new",
        description="Write the starting files of a new model: the model, its settings, its closed "
        "forms. In the root of the repository they go where its models lie; everywhere else into "
        "the working folder.",
    )
    parser.add_argument("name", help="the module's name: my_net makes the class MyNet")
    name = parser.parse_args().name

    from harness.scaffold.write import start_model

    print(start_model(name, Path.cwd()))
    return 0


if __name__ == "__main__":
    main()
