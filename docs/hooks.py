"""What the build of the site adds to mkdocs.

The site also has the repository's own pages, at the same paths as in the repository, so that a link
works in both. The parts that are made from the source are filled in: a page asks for one by a
comment on a line of its own, `<!-- made: settings -->`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tokenizers")]

from docs import import_graph, packages_picture, settings_reference  # noqa: E402

PAGES = ("*.md", "docs/**/*.md", "docs/**/*.css", "experiments/**/*", "LICENSE")
PART = re.compile(r"^<!-- made: (\w+)(?: (\S+))? -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """The theme's files, and the repository's instead of those of docs/ alone."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    ours = sorted({path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()})
    return Files([*theme, *(_file(path, config) for path in ours)])


def _file(path: Path, config: Any) -> File:
    place = path.relative_to(ROOT).as_posix()
    return File(place, str(ROOT), config.site_dir, config.use_directory_urls)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    return PART.sub(_made, markdown)


def _made(found: re.Match[str]) -> str:
    part, argument = found.groups()
    if part == "settings":
        return settings_reference.reference()
    if part == "packages":
        return import_graph.table(import_graph.package_graph())
    if part == "picture":
        # One line: a blank one would end the HTML block.
        drawn = packages_picture.picture(import_graph.package_graph()).replace("\n", "")
        return f'<div class="wide">{drawn}</div>'
    if part == "options":
        return f"```text\n{_help(argument)}```"
    raise ValueError(f"nothing makes {found[0]}")


def _help(command: str) -> str:
    """What `python -m COMMAND --help` says."""
    ended = subprocess.run(
        [sys.executable, "-m", command, "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, env=_environment(),
    )  # fmt: skip
    return ended.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join(sys.path[:2])
    return os.environ | {"PYTHONPATH": path, "COLUMNS": "96", "NO_COLOR": "1"}
