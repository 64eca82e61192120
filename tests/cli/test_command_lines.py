"""Any command line of overrides ends in a run or in one line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
from hypothesis import given

from harness.cli.hydra_app import run_hydra
from harness.config.keys import names_in_group
from harness.config.settings import Init
from harness.train import task
from tests.conftest import plain
from tests.small_runs import TEXT
from tests.trying import tried


def keys(node: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in node.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += keys(value, f"{prefix}{name}.")
    return found


# Where the test writes, what runs, and how long: without train.steps it would be the default.
KEPT = {"run_dir", "cache", "assets", "data.path", "logger", "train", "train.steps"}
KEYS = [key for key in keys(plain("data=text", "data.path=x")) if key.split("[")[0] not in KEPT]
SOUND = {
    "model": ["bigram", "mlp", "gpt", "gru", "wavenet"],
    "tokenizer": ["char", "bytes"],
    "optimizer": names_in_group("optimizer"),
    "schedule": names_in_group("schedule"),
    "observe": names_in_group("observe"),
    "precision": ["fp32", "bf16"],
    "init": list(get_args(Init)),
    "train.seq_len": ["1", "7"],
    "train.batch_size": ["1", "3"],
    "train.accumulate": ["2"],
    "train.clip": ["null", "0.1"],
    "train.positions": ["last"],
    "train.ema": ["0.5"],
    "train.label_smoothing": ["0.1"],
    "eval.stride": ["1", "3"],
    "eval.prompt": ["bottle", "''"],
    "seed": ["0", "7"],
}
ODD = ["-1", "0", "1", "1e-3", "1e99", "nan", "null", "true", "''", "[]", "{}", "[1,2]", "a,b", "é",
       "{_target_: os.system}", "${seed}", "${nope}", "???", "zoo.gpt.GPT", "../up",
       "1" * 30]  # fmt: skip
OVERRIDES = st.one_of(
    *(st.sampled_from(values).map(f"{key}={{}}".format) for key, values in SOUND.items()),
    st.builds("{}{}={}".format, st.sampled_from(["", "", "+", "++"]), st.sampled_from(KEYS),
              st.sampled_from(ODD) | st.text(max_size=4)),
    st.builds("~{}".format, st.sampled_from(KEYS)),
    st.text(max_size=8),
)  # fmt: skip


def ends(overrides: list[str]) -> tuple[int, str]:
    """The code and the stderr of a training of a step with these overrides, in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder, err = Path(name), io.StringIO()
        (folder / "text").write_text(TEXT[:2000])
        before, argv = Path.cwd(), sys.argv
        sys.argv = [
            "train.py", "data=text", f"data.path={folder / 'text'}", f"cache={folder / 'cache'}",
            f"run_dir={folder / 'run'}", "device=cpu", "precision=fp32", "train.steps=1",
            "train.batch_size=2", "train.seq_len=4", "eval.sample_tokens=2", "model.n_layer=1",
            "model.n_head=1", "model.n_embd=8", "model.block_size=8", *overrides,
        ]  # fmt: skip
        try:
            os.chdir(folder)
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                run_hydra(task)
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.argv = argv
            os.chdir(before)
        assert isinstance(code, int)
        if code == 2:
            assert not (folder / "run").exists()
            assert [
                path.name for path in folder.iterdir() if path.name not in ("text", "cache")
            ] == []
        return code, err.getvalue()


def is_clean(overrides: list[str]) -> None:
    code, err = ends(overrides)
    assert code in (0, 1, 2), err
    assert "Traceback" not in err
    if code == 2:
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1, err


LISTS = st.lists(OVERRIDES, min_size=1, max_size=3)


def test_the_command_line_of_these_properties_trains() -> None:
    code, err = ends([])
    assert code == 0, err


@given(LISTS)
@tried(6)
def test_any_command_line_ends_in_a_run_or_one_line(overrides: list[str]) -> None:
    is_clean(overrides)


@pytest.mark.long
@given(LISTS)
@tried(1000)
def test_a_thousand_command_lines_end_in_a_run_or_one_line(overrides: list[str]) -> None:
    is_clean(overrides)
