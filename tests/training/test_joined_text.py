"""Training on several files: what is recorded of them, and the run goes on without the cache."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.saved import load_settings
from tests.conftest import Ended
from tests.small_runs import TEXT, summary, train


def test_a_run_on_several_files(
    tmp_path: Path, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, half = tmp_path / "texts", len(TEXT) // 2
    texts.mkdir()
    (texts / "a.txt").write_bytes(TEXT[:half].encode() + b"\xff")
    (texts / "b.txt").touch()
    records = [json.dumps({"body": TEXT[half:]}), json.dumps({"body": ""})]
    (texts / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(records).encode()))
    monkeypatch.chdir(tmp_path)
    chosen = (
        "model=bigram", "train.steps=2", "eval.sample_tokens=0", "tokenizer=bytes",
        "data.path='texts/*'", "data.field=body", "data.errors=replace", "data.separator='|'",
    )  # fmt: skip
    assert train(tmp_path / "a", *chosen) == 0
    found, run = summary(tmp_path / "a"), tmp_path / "a" / "run"
    counts = {"files": 3, "texts": 4, "empty": 2, "replaced": 1, "passed_over": 0}
    assert {name: found["corpus"][name] for name in counts} == counts
    assert load_settings(run / "config.yaml").data["path"] == str(texts / "*")
    assert "2 of 4 files or records are empty" in (run / "train.log").read_text()
    # From another folder, and another cache.
    ended = command("evaluate", run, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["bits_per_byte"] == found["test"]["bits_per_byte"]
    whole = (TEXT[:half] + "�|" + TEXT[half:]).encode()
    (tmp_path / "whole.txt").write_bytes(whole)
    assert train(tmp_path / "b", *chosen[:4], f"data.path={tmp_path / 'whole.txt'}") == 0
    assert summary(tmp_path / "b")["corpus"]["sha256"] == found["corpus"]["sha256"]
    shutil.rmtree(tmp_path / "cache")
    assert train(tmp_path / "a", *chosen, "resume=true", "train.steps=3") == 0
    assert summary(tmp_path / "a")["corpus"] == found["corpus"]
