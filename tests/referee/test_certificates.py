"""From a training to the comparison: what is certified, by whom, and for what."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.rows import strict_json
from harness.compute.device import Compute
from harness.evaluation.score import resolve_stride, token_nats
from harness.referee import sequential
from harness.referee.decoder import LocalDecoder
from harness.referee.sequential import rescore
from harness.referee.verify import flops
from harness.report.records.certified import certify_strangers
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.runs import certificate, seal
from harness.runs.certificate import Check
from harness.runs.load import load_run
from harness.runs.summary import read_summary
from harness.training import run as training
from tests.conftest import Ended
from tests.referee.cheats.models import LongTexts
from tests.small_runs import train
from tests.zoo_models import fresh, node, random_ids, randomize

TINY = ("model.n_layer=1", "model.n_embd=8", "eval.sample_tokens=0")
PEEK = (
    "model=gru", "model.n_hidden=8", *TINY, "trust=[tests]", "optimizer.lr=3e-2",
    f"model._target_={LongTexts.__module__}.LongTexts", "train.steps=60",
)  # fmt: skip


@pytest.fixture
def peek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a model that looks ahead, which nobody tried before its training."""
    monkeypatch.setattr(training, "require_honest", lambda *arguments: None)
    assert train(tmp_path / "peek", *PEEK) == 0
    return tmp_path / "peek" / "run"


def test_a_peek_that_was_trained_is_apart_in_words(
    peek: Path, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    """By the sample at its end, and by a certificate made later."""
    summary = json.loads((peek / "summary.json").read_text())
    assert summary["causal"] is False
    assert summary["certificate"].startswith("failed sequential: fed one token at a time")
    (entry,) = compare_runs(find_runs([tmp_path / "peek"])).uncounted
    assert "not certified" in entry[1]
    assert "failed sequential" in entry[1]
    ended = command("verify", peek, "--trust", "tests")
    assert ended.code == 1
    found = certificate.read(peek)
    assert found is not None
    assert found.made_by == "verify"
    assert {"sequential", "causality"} <= {check.name for check in found.failed}
    assert "FAILED" in ended.out


def test_a_forged_certificate_ranks_nothing(
    peek: Path, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    """All digests are right, and all checks passed; only the seal is missing."""
    file = peek / certificate.FILE
    document = json.loads(file.read_text())
    for check in document["checks"]:
        check["result"] = "passed"
    document["complete"] = True
    file.write_text(json.dumps(document))
    ended = command("compare", tmp_path / "peek")
    assert "not made here; making it anew" in ended.err
    assert "it can't be made anew: model._target_=tests.referee.cheats" in " ".join(
        ended.out.split()
    )
    assert compare_runs(find_runs([tmp_path / "peek"])).ranked == ()


def test_a_strangers_certificate_is_made_anew(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest run is ranked then; one with an edited score is not."""
    monkeypatch.setattr("harness.referee.verify.SECONDS", 0.1)
    for name in ("honest", "edited"):
        shutil.copytree(finished_run, tmp_path / "runs" / name)
    summary = tmp_path / "runs" / "edited" / "summary.json"
    document = json.loads(summary.read_text())
    document["test"] |= {key: 0.9 * document["test"][key] for key in ("nats_per_token",)}
    summary.write_text(json.dumps(document))
    edited, own = find_runs([tmp_path / "runs"])
    assert edited.uncertified is not None
    assert "another score" in edited.uncertified
    assert not own.is_strangers
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    found = find_runs([tmp_path / "runs"])
    assert all(run.is_strangers and run.uncertified for run in found)
    edited, own = certify_strangers(found, complete=True)
    assert edited.uncertified is not None
    assert "failed reported" in edited.uncertified
    assert own.uncertified is None
    assert own.complete
    anew = certificate.read(tmp_path / "runs" / "honest")
    assert anew is not None
    assert anew.is_own
    assert anew.score is not None
    assert own.test is not None
    assert own.test.bits_per_byte == anew.score.bits_per_byte
    assert own.blocks is not None
    assert own.test.bytes is not None
    assert np.isclose(
        sum(own.blocks.nats), own.test.bits_per_byte * own.test.bytes * np.log(2), rtol=1e-6
    )
    assert stat.S_IMODE(seal.key_path().stat().st_mode) == 0o600


def test_one_of_an_earlier_version_is_ones_own_still(finished_run: Path, tmp_path: Path) -> None:
    """Its file lacks the fields that came later; else every certificate would be made anew."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    document = json.loads((run / certificate.FILE).read_text())
    del document["seal"]
    for later in ("sha256", "texts"):
        del document["bound_to"]["reported"][later]
    mark = seal.seal(strict_json(document))
    for changed in ({}, {"complete": True}):
        (run / certificate.FILE).write_text(json.dumps(document | changed | {"seal": mark}))
        found = certificate.read(run)
        assert found is not None
        assert found.is_own == (not changed)


def test_a_finished_run_has_a_certificate_that_binds_it(finished_run: Path) -> None:
    found = certificate.read(finished_run)
    assert found is not None
    assert found.failed == []
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["causal"] is True
    assert found.bound_to.weights == certificate.scored_digest(finished_run / "checkpoints")
    assert found.bound_to.corpus == summary["corpus"]["sha256"]
    assert found.score is not None
    assert abs(found.score.difference) <= found.score.bound


def test_flops_are_counted_again(finished_run: Path) -> None:
    run, summary = load_run(finished_run, "best", "cpu", []), read_summary(finished_run)

    def found() -> Check:
        return flops(run.settings, run.model.vocab_size, summary)

    assert found().result == "not applicable"  # there is no formula
    assert f"{summary.flops_per_token:,.0f} a token" in found().words
    assert summary.flops_per_token is not None
    summary.flops_per_token /= 2
    assert found().result == "failed"
    summary.versions = {"torch": "1.0"}
    assert found().result == "unknown"


@pytest.mark.parametrize("chunk", [4096, 128])
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=gpt", "model.n_head=2"),
        ("model=gru", "model.n_hidden=8"),
        ("model=mlp", "model.n_hidden=8"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_the_sequential_score_is_the_score(
    overrides: tuple[str, ...], chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prediction once, whether the score's chunks lie side by side or there is only one."""
    monkeypatch.setattr("harness.evaluation.score.STREAM_CHUNK", chunk)
    monkeypatch.setattr(sequential, "STREAM_CHUNK", chunk)
    monkeypatch.setattr(sequential, "STRETCH", min(chunk, sequential.STRETCH))
    assert train(tmp_path / "run", *overrides, *TINY) == 0
    run = load_run(tmp_path / "run" / "run", "best", "cpu", [])
    test = run.dataset().test
    assert test is not None
    ids = np.asarray(test.ids)
    stride = resolve_stride(run.model.block_size, None) if run.model.block_size else None
    expected = token_nats(run.model, ids, run.compute, stride)
    decoder = LocalDecoder(run.model, run.compute)
    found = rescore(decoder, ids, stride, complete=True)
    np.testing.assert_allclose(found.nats, expected, atol=1e-5)
    if stride is None and chunk == 128:
        assert "5 of them side by side" in found.how
    some = rescore(decoder, ids, stride, complete=False)
    np.testing.assert_allclose(some.nats[some.checked], expected[some.checked], atol=1e-5)
    assert some.checked.any()


@pytest.mark.parametrize(("places", "coincide"), [([3, 6, 12], True), ([3, 5, 6], False)])
def test_rings_that_do_not_coincide_are_not_stacked(places: list[int], coincide: bool) -> None:
    """The convolution of Mamba-2 keeps three inputs in a ring: row 1 of the second would be read in
    another order, the others as they are."""
    model = randomize(fresh(node("mamba2"))).eval()
    ids = random_ids(1, 20)[0].numpy()
    decoder = LocalDecoder(model, Compute.choose("cpu", "fp32"))
    decoder.start(1)
    for before, place in pairwise([0, *places]):
        decoder.carry(ids[before:place])
        decoder.keep()
    assert sequential._stacks(decoder, ids, places, [0, 1, 2]) is coincide


@pytest.mark.parametrize("targets", [97, 700, 9000])
def test_a_sample_may_be_of_any_part_of_a_stream(targets: int) -> None:
    """Over its seeds, to the last token."""
    checked = np.zeros(targets, bool)
    for seed in range(600):
        found = rescore(_Constant(), np.zeros(targets + 1, np.int64), None, False, seed)
        assert found.checked.sum() < targets
        checked |= found.checked
    assert checked.mean() > 0.98
    assert checked[-1]


class _Constant:
    """A decoder of a stream in which every token is as likely."""

    def describe(self) -> tuple[None, int, int]:
        return None, 2, 1

    def start(self, rows: int) -> None: ...

    def carry(self, ids_T: Any) -> None: ...

    def keep(self) -> None: ...

    def resume(self, kept: list[int]) -> bool:
        return True

    def feed(self, ids_R: Any, wanted: Any) -> Any:
        return np.zeros((len(wanted), 2), np.float32)


def test_nothing_changes_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the referee: the same rows."""
    overrides = ("model=gpt", "model.n_head=2", "model.dropout=0.1", *TINY)
    assert train(tmp_path / "a", *overrides) == 0
    monkeypatch.setattr(training, "require_honest", lambda *arguments: None)
    monkeypatch.setattr("harness.training.loop.after_training", lambda *arguments: None)
    assert train(tmp_path / "b", *overrides) == 0

    def trace(name: str) -> list[dict[str, object]]:
        lines = (tmp_path / name / "run" / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return [{key: row[key] for key in row if key != "seconds"} for row in rows]

    assert trace("a") == trace("b")


def test_another_checkpoint_is_not_certified(finished_run: Path) -> None:
    found = certificate.read(finished_run)
    assert found is not None
    summary = read_summary(finished_run)
    assert certificate.why_unfit(found, finished_run, summary) is None
    bound = found.bound_to.model_copy(update={"weights": "0" * 64})
    other = found.model_copy(update={"bound_to": bound})
    assert certificate.why_unfit(other, finished_run, summary) == "other weights"
    newer = found.bound_to.model_copy(update={"definition": 2})
    other = found.model_copy(update={"bound_to": newer})
    assert certificate.why_unfit(other, finished_run, summary) == (
        "another definition of the score"
    )
