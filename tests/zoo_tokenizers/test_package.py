"""The package: it stands alone, and shadows no other of its name."""

from __future__ import annotations

import os
import subprocess
import sys

from harness.common.paths import REPOSITORY


def test_the_package_knows_nothing_of_the_harness() -> None:
    program = (
        "import sys, pkgutil, importlib, zoo_tokenizers\n"
        "for module in pkgutil.iter_modules(zoo_tokenizers.__path__):\n"
        "    importlib.import_module('zoo_tokenizers.' + module.name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('harness', 'zoo', 'torch',"
        " 'transformers', 'huggingface_hub')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tokenizers'}"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_the_name_tokenizers_is_hugging_faces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tokenizers; print(tokenizers.Tokenizer.__module__)"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout.strip() == "tokenizers", done.stderr
    assert not (REPOSITORY / "tokenizers/__init__.py").exists()
