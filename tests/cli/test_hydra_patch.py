"""Hydra offers no place for a loader of one's own. This is the one library that is patched."""

from __future__ import annotations

import re

import pytest
from hydra._internal import hydra as internals
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from harness.cli.hydra_app import compose
from harness.cli.loader import Loader
from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY

FOREIGN = "+hydra.callbacks.other._target_=os.system"


def test_why_hydras_loader_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own takes any class for a callback, and would build it before anything of ours runs;
    and it says over many lines what is wrong with a setting."""
    assert vars(internals)["ConfigLoaderImpl"] is Loader
    with pytest.raises(UsageError, match="callbacks can't be changed"):
        compose([FOREIGN])
    monkeypatch.setitem(vars(internals), "ConfigLoaderImpl", ConfigLoaderImpl)
    assert compose([FOREIGN]).hydra.callbacks.other._target_ == "os.system"
    with pytest.raises(Exception, match="\n"):
        compose(["modle=gpt"])


def test_no_other_library_is_patched() -> None:
    """An assignment to what a module of another package holds."""
    patched = re.compile(r"^\s*(?:vars\((\w+)\)\[|setattr\((\w+), )", re.MULTILINE)
    found = {
        path.name
        for folder in ("harness", "zoo", "tokenizers")
        for path in (REPOSITORY / folder).rglob("*.py")
        if patched.search(path.read_text())
    }
    # A role is put on a module of transformers, a class that is trained: no code of theirs changes.
    # Closed standard streams are opened again. The drills wrap the system's calls in forked tries.
    drills = {"files.py", "moments.py"}
    assert found == {"hydra_app.py", "hugging_face.py", "streams.py"} | drills
