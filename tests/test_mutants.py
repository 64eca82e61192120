"""Seeded errors in the numbers that a run writes: a test named here must fail on each.

The tree is copied once, and each error put into the copy in its turn.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.common.paths import REPOSITORY
from tests.data.mutants import OF_MIXES, OF_SKILLS, OF_STREAMS
from tests.judging.mutants import OF_THE_JUDGE
from tests.training.mutants import OF_LOSSES_AND_FIGURES

PINNED, OWN = "training/test_pinned_numbers.py", "evaluation/test_own_score.py"
RECORDS = "runs/test_run_records.py"
LOOP, TRAINER = "harness/training/loop.py", "harness/training/trainer.py"
PROGRESS, RECORDER = "harness/training/progress.py", "harness/training/recorder.py"
SCORE, SAMPLES = "harness/evaluation/score.py", "harness/runs/samples.py"
AVERAGE = "harness/training/moving_average.py"
RECOMPUTE = """\
                if plan.batch_norm == "precise":  # before saving what will be scored
                    batch_norm.recompute(evaluated, _more_batches(context), plan.batch_norm_samples)
"""
RECOMPUTE_LATER = """\
            if evaluating and plan.batch_norm == "precise":
                batch_norm.recompute(evaluated, _more_batches(context), plan.batch_norm_samples)
"""
SAVE = """\
            if checkpoints.is_due(step):
                checkpoints.save(progress)
"""
# What is wrong: file, text, text put in its place, the tests that must fail.
MUTANTS = {
    "the average updated twice a step": (
        TRAINER,
        "self._average.update_parameters(self.model)\n",
        "[self._average.update_parameters(self.model) for _ in range(2)]\n",
        PINNED,
    ),
    "the average updated at skipped steps": (
        TRAINER,
        "self._buffers.restore()\n",
        "self._buffers.restore(); self._average and self._average.update_parameters(self.model)\n",
        PINNED,
    ),
    "the decay of the average is another": (
        TRAINER,
        "MovingAverage(self.model, ema)",
        "MovingAverage(self.model, ema**2)",
        PINNED,
    ),
    "the average is not what is scored": (
        TRAINER,
        "return self.model if average is None else cast(LanguageModel, average.module)",
        "return self.model",
        PINNED,
    ),
    "counts are averaged": (
        AVERAGE,
        "buffer.is_floating_point()",
        "True",
        f'{OWN} -k "bert and ema and whole"',
    ),
    "infinities are averaged": (
        AVERAGE,
        "buffer.is_floating_point() and buffer.isfinite().all()",
        "buffer.is_floating_point()",
        f"{OWN} -k recurrence",
    ),
    "the last weights are tested": (
        LOOP,
        "checkpoints.load_best(progress)\n        started",
        "started",
        PINNED,
    ),
    "validation scores the test split": (
        LOOP,
        "_score(context, evaluated, dataset.val, own)",
        "_score(context, evaluated, dataset.test, own)",
        PINNED,
    ),
    "the test is on validation": (
        LOOP,
        "score = _score(context, evaluated, final, own)",
        "score = _score(context, evaluated, dataset.val, own)",
        PINNED,
    ),
    "the best is chosen by test": (
        LOOP,
        "if progress.update_best(score):",
        "if progress.update_best(_score(context, evaluated, dataset.test, own)):",
        PINNED,
    ),
    "the worst is the best": (
        PROGRESS,
        'score.nats < self.best["nats"]',
        'score.nats > self.best["nats"]',
        PINNED,
    ),
    "the first token's bytes are paid for": (
        SCORE,
        "split.bytes - int(tokenizer.token_bytes[int(split.ids[0])])",
        "split.bytes",
        PINNED,
    ),
    "the first token's bytes are one": (
        SCORE,
        "int(tokenizer.token_bytes[int(split.ids[0])])",
        "1",
        PINNED,
    ),
    "unknown characters cost nothing": (SCORE, " + split.unknown_nats", "", PINNED),
    "perplexity in bits": (
        SCORE,
        "math.exp(self.nats_per_token)",
        "2**self.nats_per_token",
        PINNED,
    ),
    "the stride is that of a whole window": (
        SCORE,
        "max(1, block_size // 2 // patch_size) * patch_size",
        "block_size",
        "training/test_loop.py -k design",
    ),
    "the rate of another step": (
        TRAINER,
        'self._peaks[""] * lr_factor if',
        'self._peaks[""] * lr_factor * 0.999 if',
        PINNED,
    ),
    "a part's rate is everybody's": (
        TRAINER,
        'f"lr/{part}": peak * lr_factor',
        "f\"lr/{part}\": self._peaks[''] * lr_factor",
        PINNED,
    ),
    "the norm after clipping": (
        "harness/training/readings.py",
        '"grad_norm": norm,',
        '"grad_norm": min(norm, self.clip),',
        PINNED,
    ),
    "the norm before it is unscaled": (
        TRAINER,
        "norm = self._gradients.clip(clip)",
        "norm = self._gradients.clip(clip) * len(trained)",
        PINNED,
    ),
    "no clipping": (TRAINER, "_gradients.clip(clip)", "_gradients.clip(math.inf)", PINNED),
    "targets that do not count are counted": (
        TRAINER,
        "return trained\n",
        "return targets_BT.numpy().flatten().clip(0)\n",
        PINNED,
    ),
    "the bytes of one id": (
        PROGRESS,
        "int(token_bytes[targets].sum())",
        "int(token_bytes[0] * len(targets))",
        PINNED,
    ),
    "bytes are tokens": (
        PROGRESS,
        "self.bytes += int(token_bytes[targets].sum())",
        "self.bytes += len(targets)",
        PINNED,
    ),
    "each micro-batch weighs alike": (
        TRAINER,
        "                    weight,\n",
        "                    1 / (targets_BT[part] != IGNORED).sum() / plan.accumulate,\n",
        PINNED,
    ),
    "the loss of all positions": (
        TRAINER,
        "StepNumbers(row, len(trained), loss",
        "StepNumbers(row, targets_BT.numel(), loss",
        PINNED,
    ),
    "the loss with label smoothing": (
        "harness/training/loss.py",
        "return nats.detach(), objective",
        "return objective.detach(), objective",
        PINNED,
    ),
    "evaluation counts as training time": (
        LOOP,
        "            started = context.clock()\n",
        "            started = context.clock() if not step else started\n",
        PINNED,
    ),
    "FLOPs of the step to come": (
        RECORDER,
        "own_steps * self._flops_per_step",
        "(own_steps + 1) * self._flops_per_step",
        PINNED,
    ),
    "FLOPs of one micro-batch": (
        "harness/training/flops.py",
        "return plan.batch_size * plan.accumulate * per_row",
        "return plan.batch_size * per_row",
        PINNED,
    ),
    "tokens a second of the last step": (
        RECORDER,
        'row["tokens"] / row["seconds"] if',
        'row["tokens"] / row["step"] / row["seconds"] if',
        PINNED,
    ),
    "shared parameters count twice": (
        "harness/compute/costs.py",
        "total := sum(p.numel() for p in model.parameters())",
        "total := sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))",
        PINNED,
    ),
    "skipped steps are not counted": (
        "harness/training/guards.py",
        "        self.skipped += 1\n",
        "        self.skipped += 0\n",
        PINNED,
    ),
    "a skipped step is taken": (
        TRAINER,
        "allowed = self.guard.allows_update(",
        "allowed = self.guard.allows_update(reading.row, self.model, True, True) or "
        "self.guard.allows_update(",
        PINNED,
    ),
    "rows wait beyond a checkpoint": (
        "harness/training/loop.py",
        "log_read(now=step == 0 or evaluating or is_due or",
        "log_read(now=step == 0 or evaluating or",
        "training/test_readings.py",
    ),
    "a loss read late stops nothing": (
        TRAINER,
        "                reading.row, self.model, self._skips,",
        "                reading.row, self.model, True,",
        "training/test_readings.py",
    ),
    "val of the first evaluation": (
        RECORDER,
        "self._summary.val = Scored.of(",
        "self._summary.val = self._summary.val or Scored.of(",
        PINNED,
    ),
    "the corpus's digest is of train alone": (
        "harness/data/corpus.py",
        "return Span(0, self.size, whole.hexdigest()), spans",
        "return Span(0, self.size, spans[0].sha256), spans",
        PINNED,
    ),
    "blocks of the test score without what is unknown": (
        "harness/evaluation/token_losses.py",
        "    if not split.unknown:\n",
        "    if True:\n",
        PINNED,
    ),
    "evaluate has a batch size of its own": (
        "harness/evaluation/evaluate_run.py",
        "arguments.batch_size or run.settings.eval.batch_size",
        "arguments.batch_size or 64",
        "evaluation/test_evaluate_and_sample.py -k windows",
    ),
    "evaluate reads the weights, not their average": (
        "harness/runs/load.py",
        "if not isinstance(saved, StepCheckpoint) or saved.average is None:",
        "if True:",
        f'{OWN} -k "gpt and ema and whole"',
    ),
    "statistics are recomputed after the weights are saved": (
        LOOP,
        RECOMPUTE + SAVE,
        SAVE + RECOMPUTE_LATER,
        f'{OWN} -k "precise and resumed"',
    ),
    "a heading in a text is a heading": (
        SAMPLES,
        "_TO_ESCAPE.sub(",
        "(lambda _, text: text)(",
        RECORDS,
    ),
    "a cut line may be a heading": (
        "harness/common/contained.py",
        "if start else content",
        "if False else content",
        RECORDS,
    ),
    "a message of several lines is several records": (
        "harness/runs/folder.py",
        '"\\n    ".join',
        '"\\n".join',
        RECORDS,
    ),
    "padding has a loss": (
        "harness/data/batches.py",
        ".masked_fill(is_padding, IGNORED)",
        ".masked_fill(is_padding, 0)",
        "data/test_document_batches.py",
    ),
    "a vocabulary is learnt across documents": (
        "tokenizers/zoo_tokenizers/tokenizer.py",
        "if isinstance(texts, WholeTexts):",
        "if False:",
        "data/test_documents.py",
    ),
    "documents are scored as one text": (
        SCORE,
        "        if documents is not None:\n            plan",
        "        if False:\n            plan",
        'zoo/test_laws.py -k "documents and lstm"',
    ),
    "packed rows are computed as one text": (
        TRAINER,
        'settings.build("data", Corpus).rows == "packed"',
        "False",
        "training/test_packed.py -k run",
    ),
    "a fork counts its parent's rows as its own": (
        "harness/training/loop.py",
        "first = progress.tokens // trained",
        "first = progress.step * rows",
        "training/test_epochs.py -k fork",
    ),
    "a fork counts its parent's FLOPs as its own": (
        "harness/training/flops.py",
        "    if theirs == own:",
        "    if True:",
        "training/test_fork.py -k flops",
    ),
} | OF_THE_JUDGE
MUTANTS |= OF_SKILLS | OF_MIXES | OF_STREAMS | OF_LOSSES_AND_FIGURES


# Noticed by the training that the tests share: it refuses blocks that do not cover the test text.
REFUSED = {"the test is on validation"}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants") / "tree"
    for name in ("harness", "zoo", "tokenizers", "conf", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def outcome(folder: Path, assets: Path, tests: str) -> subprocess.CompletedProcess[str]:
    name, *options = shlex.split(tests)
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tokenizers'}",
        "ZOO_ASSETS": str(assets),  # none lie beside the copy, and a skipped test notices nothing
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", f"tests/{name}", *options],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_can_be_made(name: str) -> None:
    """Its text is still there, once."""
    file, old, new, _ = MUTANTS[name]
    assert (REPOSITORY / file).read_text().count(old) == 1
    assert old != new


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_noticed(copied: Path, assets: Path, name: str) -> None:
    file, old, new, tests = MUTANTS[name]
    before = (REPOSITORY / file).read_text()
    try:
        (copied / file).write_text(before.replace(old, new))
        found = outcome(copied, assets, tests)
    finally:
        (copied / file).write_text(before)
    assert found.returncode == 1, found.stdout
    assert ("ERROR tests" if name in REFUSED else "FAILED tests") in found.stdout, found.stdout
    assert not re.search(r"^E +(NameError|ImportError|AttributeError)", found.stdout, re.MULTILINE)
    assert "SyntaxError" not in found.stdout


@pytest.mark.long
@pytest.mark.parametrize("tests", sorted({tests for *_, tests in MUTANTS.values()}))
def test_without_a_mutant_they_pass(copied: Path, assets: Path, tests: str) -> None:
    assert outcome(copied, assets, tests).returncode == 0
