"""Folders of version 0.1 can still be read, compared, evaluated, sampled and resumed.

version_0_1/ was written by commit 17f5f6b, in its folder, by `python -m harness.train` with
    run_dir=gpt model=gpt model.n_layer=1 model.n_head=1 model.n_embd=4 model.block_size=16
        tokenizer=bytes optimizer=muon schedule=constant
    run_dir=bigram model=bigram tokenizer=char optimizer=lion schedule=stable_decay train.ema=0.9
and, for both,
    data=text data.path=text.txt device=cpu precision=fp32 assets=[] observe=off train.steps=8
        train.batch_size=2 train.seq_len=16 eval.every=4 eval.sample_tokens=16
What is expected here is what that commit printed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.build import resolve_class
from harness.config.saved import with_moved_classes
from harness.data.corpus import Corpus
from harness.live.watch import LiveRun
from harness.loggers.base import Logger
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.runs import metrics
from harness.runs.summary import read_summary
from harness.training.schedules import Schedule
from tests.conftest import Ended
from tests.training.sweeps import contents
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

OLD = Path(__file__).parent / "version_0_1"
MODELS = ("gpt", "bigram")
TEST = {"gpt": 5.397889960113416, "bigram": 2.833865138167509}  # nats per token after 8 steps
RESUMED = {"bigram": 2.8330987696182857}  # after 12
SAMPLED = {"bigram": "the \ni irooycytarh\nymchhwyid\n"}  # 24 tokens with seed 1


@pytest.fixture
def old(tmp_path: Path, command: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of `command`, with the folders and the text in it."""
    here = tmp_path / "here"
    shutil.copytree(OLD, here, dirs_exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return here


def test_they_are_compared(old: Path, command: Callable[..., Ended]) -> None:
    """Apart, until they have a certificate."""
    comparison = compare_runs(find_runs([old]))
    assert comparison.ranked == ()
    assert all("no certificate" in reason for _, reason in comparison.uncounted)
    ended = command("verify", old / "gpt", "--complete")
    assert ended.code == 0, ended.out + ended.err
    comparison = compare_runs(find_runs([old]))
    assert [run.model for run, _ in comparison.uncounted] == ["bigram"]
    assert [group.model for group in comparison.ranked] == ["gpt"]
    for run in comparison.records:
        assert run.test is not None
        stored = TEST[run.model]  # gpt's is that of its complete certificate, token by token
        exact = stored if run.model == "bigram" else pytest.approx(stored, rel=1e-7)
        assert run.test.nats_per_token == exact
        saved = read_summary(run.folder).test
        assert saved is not None
        assert saved.nats_per_token == stored
        assert [row["step"] for row in run.metrics.evaluations] == [0, 4, 8]
        assert run.metrics.losses[:, 0].tolist() == list(range(8))
        assert run.blocks is not None
        assert run.sample is not None
        assert run.config["train.steps"] == "8"


@pytest.mark.parametrize("model", MODELS)
def test_the_live_page_shows_them(model: str, old: Path) -> None:
    run = LiveRun(old / model)
    run.look()
    card = run.card
    assert card is not None
    assert (card["status"], card["model"], card["step"]) == ("finished", model, 8)
    assert [sample["step"] for sample in run.details()["samples"]] == [0, 4, 8]


@pytest.mark.parametrize("model", MODELS)
def test_they_are_evaluated(model: str, old: Path, command: Callable[..., Ended]) -> None:
    ended = command("evaluate", model, "--json")
    assert ended.code == 0, ended.err
    score = json.loads(ended.out)
    assert score["nats_per_token"] == pytest.approx(TEST[model], rel=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_they_are_sampled(model: str, old: Path, command: Callable[..., Ended]) -> None:
    ended = command("sample", model, "--tokens", 24, "--seed", 1, "--prompt", "the ")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("the ")
    assert ended.out == SAMPLED.get(model, ended.out)


@pytest.mark.parametrize("model", MODELS)
def test_they_are_resumed(model: str, old: Path, command: Callable[..., Ended]) -> None:
    before = (old / model / metrics.FILE).read_text().splitlines()
    left = contents(old / model)
    ended = command("train", f"run_dir={model}", "resume=true", "train.steps=12")
    if model == "gpt":  # whose tied head that version did not decay
        assert ended.code == 2
        assert ended.err.endswith("an older version of the code, decayed other parameters\n")
        assert contents(old / model) == left  # a refusal costs a finished run nothing
        return
    assert ended.code == 0, ended.err
    rows = (old / model / metrics.FILE).read_text().splitlines()
    assert rows[:8] == before[:8]
    assert [json.loads(row)["step"] for row in rows] == list(range(13))
    summary = json.loads((old / model / "summary.json").read_text())
    assert summary["test"]["nats_per_token"] == pytest.approx(RESUMED[model], rel=1e-6)


# Every class of ours that version 0.1 has in conf/, and that a run's configuration may name.
CLASSES: dict[str, tuple[type, tuple[str, ...]]] = {
    "data": (Corpus, ("Download", "PythonDocs", "TextFile")),
    "schedule": (
        Schedule,
        ("Constant", "Cosine", "InverseSqrt", "Linear", "StableDecay", "Step"),
    ),
    "loggers": (Logger, ("Local",)),
    "loggers.tensorboard": (Logger, ("TensorBoard",)),
    "loggers.trackio": (Logger, ("Trackio",)),
    "loggers.wandb": (Logger, ("WandB",)),
    "lion": (object, ("Lion",)),
    "optim": (object, ("Muon",)),
}
MODELS_BY_MODULE = {
    "bigram": "Bigram", "bow": "BoW", "gpt": "GPT", "hugging_face": "HuggingFace",
    "ladder": "Ladder", "megabyte": "MEGABYTE", "mlp": "MLP", "perceiver_ar": "PerceiverAR",
    "wavenet": "WaveNet",
}  # fmt: skip
TARGETS: list[tuple[str, type]] = [
    *((f"harness.{place}.{name}", kind)
      for place, (kind, names) in CLASSES.items() for name in names),
    *((f"zoo.{module}.{name}", LanguageModel) for module, name in MODELS_BY_MODULE.items()),
    *((f"zoo.recurrent.{name}", LanguageModel) for name in ("GRU", "LSTM", "RNN")),
    *((f"zoo_tokenizers.{place}", Tokenizer) for place in (
        "bytes.Bytes", "characters.Characters", "huggingface.BytePairs", "huggingface.HuggingFace",
        "sentencepiece.SentencePiece", "tiktoken.Tiktoken",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("target", "kind"), TARGETS, ids=[target for target, _ in TARGETS])
def test_every_class_is_found(target: str, kind: type) -> None:
    moved: dict[str, Any] = with_moved_classes({"_target_": target})
    assert resolve_class(moved["_target_"], kind, "class")
