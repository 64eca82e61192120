"""Writes the starting files of a new model."""

from __future__ import annotations

import keyword
import re
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template

from harness.common.errors import UsageError
from harness.common.files import write_atomically
from harness.common.paths import REPOSITORY
from harness.common.values import show

_USED = ("Cache", "LanguageModel", "Tensor")  # by the file itself


def start_model(name: str, folder: Path) -> str:
    """Write the files of a model called `name` into `folder`; returns what to type next.

    In the root of the repository whose harness this is, they go where its models lie; everywhere
    else they make a project of the user's own.
    Raises UsageError for a name that can't be a module's, and if one of the files exists.
    """
    in_repository = folder.resolve() == REPOSITORY and (folder / "tests/zoo/architectures").is_dir()
    class_name = _class_name(name)
    files = _files(name, class_name, in_repository)
    for path in files:
        if (folder / path).exists():
            raise UsageError(f"{path} exists and is not overwritten: choose another name")
    if not in_repository and find_spec(name) is not None:
        raise UsageError(f"{name} is the name of a package that is installed: choose another name")
    for path, text in files.items():
        write_atomically(folder / path, text.encode())
    if in_repository:
        train, test = f"model={name}", f"tests/zoo/test_laws.py -k {name}"
    else:
        train, test = f"model._target_={name}.{class_name} trust=[{name}]", f"test_{name}.py"
    wrote = "\n".join(f"wrote {path}" for path in files)
    return f"{wrote}\nnow: python -m harness.train {train}\n     python -m pytest {test}"


def _class_name(name: str) -> str:
    """my_net: MyNet. Raises UsageError if `name` can't be a module's."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise UsageError(
            f"{show(name)} can't be a module's name: small letters, digits and _, a letter first, "
            "and no keyword of Python"
        )
    class_name = "".join(part.capitalize() for part in name.split("_"))
    if class_name in _USED:
        raise UsageError(
            f"{name} would make a class {class_name}, as there is: choose another name"
        )
    return class_name


def _files(name: str, class_name: str, in_repository: bool) -> dict[str, str]:
    """The text of each file, by its path."""
    sources = (
        {f"zoo/{name}.py": "model.py", f"tests/zoo/architectures/{name}.py": "architecture.py"}
        if in_repository
        else {f"{name}.py": "model.py", f"test_{name}.py": "checks.py"}
    )
    sources[f"conf/model/{name}.yaml"] = "settings.yaml"
    target = f"{'zoo.' if in_repository else ''}{name}.{class_name}"
    words = {"name": name, "Class": class_name, "target": target}
    words["formulas"] = _template("formulas.py").template
    return {path: _template(source).substitute(words) for path, source in sources.items()}


def _template(name: str) -> Template:
    folder = resources.files("harness.scaffold") / "templates"
    return Template((folder / f"{name}.txt").read_text(encoding="utf-8"))
