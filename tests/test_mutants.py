"""Seeded errors in the numbers that a run writes: a test named here must fail on each.

The tree is copied once, and each error put into the copy in its turn.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.common.paths import REPOSITORY

PINNED, OWN, RECORDS = "test_pinned_numbers.py", "test_own_score.py", "test_run_records.py"
LOOP, METRICS, SAMPLES = "harness/loop.py", "harness/metrics.py", "harness/samples.py"
# What is wrong: file, text, text put in its place, the tests that must fail.
MUTANTS = {
    "the average updated twice a step": (
        LOOP,
        "average.update_parameters(model)\n",
        "average.update_parameters(model); average.update_parameters(model)\n",
        PINNED,
    ),
    "the average updated at skipped steps": (
        LOOP,
        "attempt.undo()\n",
        "attempt.undo(); average and average.update_parameters(model)\n",
        PINNED,
    ),
    "the decay of the average is another": (
        LOOP,
        "MovingAverage(model, plan.ema)",
        "MovingAverage(model, plan.ema**2)",
        PINNED,
    ),
    "the average is not what is scored": (
        LOOP,
        "cast(LanguageModel, average.module) if average is not None else model",
        "model",
        PINNED,
    ),
    "counts are averaged": (
        "harness/moving_average.py",
        "buffer.is_floating_point()",
        "True",
        f'{OWN} -k "bert and ema and whole"',
    ),
    "infinities are averaged": (
        "harness/moving_average.py",
        "bool(buffer.isfinite().all())",
        "True",
        f"{OWN} -k recurrence",
    ),
    "the last weights are tested": (
        LOOP,
        'evaluated.load_state_dict(best["model"])',
        "pass",
        PINNED,
    ),
    "validation scores the test split": (LOOP, "score(dataset.val)", "score(dataset.test)", PINNED),
    "the test is on validation": (
        LOOP,
        "test = score(dataset.test)",
        "test = score(dataset.val)",
        PINNED,
    ),
    "the best is chosen by test": (
        LOOP,
        'if progress.best is None or result.nats < progress.best["nats"]:',
        "result = score(dataset.test)\n"
        '                    if progress.best is None or result.nats < progress.best["nats"]:',
        PINNED,
    ),
    "the worst is the best": (
        LOOP,
        'result.nats < progress.best["nats"]',
        'result.nats > progress.best["nats"]',
        PINNED,
    ),
    "the first token's bytes are paid for": (
        METRICS,
        "split.bytes - int(tokenizer.token_bytes[int(split.ids[0])])",
        "split.bytes",
        PINNED,
    ),
    "the first token's bytes are one": (
        METRICS,
        "int(tokenizer.token_bytes[int(split.ids[0])])",
        "1",
        PINNED,
    ),
    "unknown characters cost nothing": (
        METRICS,
        " + split.unknown_nats",
        "",
        PINNED,
    ),
    "perplexity in bits": (
        METRICS,
        "math.exp(self.nats_per_token)",
        "2**self.nats_per_token",
        PINNED,
    ),
    "the stride is that of a whole window": (
        METRICS,
        "max(1, block_size // 2 // patch_size) * patch_size",
        "block_size",
        "test_training.py -k design",
    ),
    "the rate of the next step": (
        LOOP,
        'peaks[""] * factor if',
        'peaks[""] * schedule(spent + 1) if',
        PINNED,
    ),
    "a part's rate is everybody's": (
        LOOP,
        'f"lr/{part}": peak * factor',
        "f\"lr/{part}\": peaks[''] * factor",
        PINNED,
    ),
    "the norm after clipping": (
        LOOP,
        '"grad_norm": norm,',
        '"grad_norm": min(norm, clip),',
        PINNED,
    ),
    "the norm before it is unscaled": (
        LOOP,
        "norm = gradients.clip(clip)",
        "norm = gradients.clip(clip) * len(learnt)",
        PINNED,
    ),
    "no clipping": (LOOP, "gradients.clip(clip)", "gradients.clip(math.inf)", PINNED),
    "targets that do not count are counted": (
        LOOP,
        "progress.tokens += len(learnt)",
        "progress.tokens += targets_BT.numel()",
        PINNED,
    ),
    "the bytes of inputs": (
        LOOP,
        "token_bytes[learnt].sum()",
        "token_bytes[inputs_BT.numpy()].sum()",
        PINNED,
    ),
    "bytes are tokens": (
        LOOP,
        "progress.bytes += learnt_bytes",
        "progress.bytes += len(learnt)",
        PINNED,
    ),
    "each micro-batch weighs alike": (
        LOOP,
        "                        weight,\n",
        "                        1 / (targets_BT[part] != IGNORED).sum() / plan.accumulate,\n",
        PINNED,
    ),
    "the loss of all positions": (
        LOOP,
        '"train/loss": loss.item() / len(learnt)',
        '"train/loss": loss.item() / targets_BT.numel()',
        PINNED,
    ),
    "the loss with label smoothing": (
        "harness/loss.py",
        "total += nats.detach()",
        "total += aim.detach()",
        PINNED,
    ),
    "evaluation counts as training time": (
        LOOP,
        "            started = perf_counter()\n",
        "            started = perf_counter() if not step else started\n",
        PINNED,
    ),
    "FLOPs of the step to come": (
        LOOP,
        "progress.step * flops_per_step",
        "(progress.step + 1) * flops_per_step",
        PINNED,
    ),
    "FLOPs of one micro-batch": (
        LOOP,
        "step_flops(build_model, plan.seq_len, trained) * rows",
        "step_flops(build_model, plan.seq_len, trained) * plan.batch_size",
        PINNED,
    ),
    "tokens a second of the last step": (
        LOOP,
        'row["tokens"] / row["seconds"] if',
        'row["tokens"] / row["step"] / row["seconds"] if',
        PINNED,
    ),
    "shared parameters count twice": (
        "harness/measure.py",
        '"total": sum(p.numel() for p in model.parameters())',
        '"total": sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))',
        PINNED,
    ),
    "skipped steps are not counted": (
        "harness/guards.py",
        "        self.skipped += 1\n",
        "        self.skipped += 0\n",
        PINNED,
    ),
    "a skipped step is taken": (
        LOOP,
        "if guard.allows_update(",
        "if guard.allows_update(row, model, True, True) or guard.allows_update(",
        PINNED,
    ),
    "val of the last evaluation": (
        LOOP,
        'progress.best = {"step": step, "nats": result.nats, **result.summary()}',
        'progress.best = {"step": step, "nats": result.nats, **score(dataset.test).summary()}',
        PINNED,
    ),
    "the corpus's digest is of train alone": (
        "harness/data.py",
        "digest = text.digest(0, text.size)",
        "digest = text.digest(0, text.size * 6 // 10)",
        PINNED,
    ),
    "blocks of the test score without what is unknown": (
        "harness/blocks.py",
        "    if split.unknown:\n",
        "    if False:\n",
        PINNED,
    ),
    "evaluate has a batch size of its own": (
        "harness/evaluate.py",
        "arguments.batch_size or run.settings.eval.batch_size",
        "arguments.batch_size or 64",
        "test_evaluate_and_sample.py -k windows",
    ),
    "evaluate reads the weights, not their average": (
        "harness/load.py",
        'if "average" not in state:',
        "if True:",
        f'{OWN} -k "gpt and ema and whole"',
    ),
    "statistics are recomputed after the weights are saved": (
        LOOP,
        "                recompute_statistics(evaluated)\n"
        "            if step and step % settings.checkpoint.every == 0:\n"
        "                save_checkpoint()\n",
        "                if step and step % settings.checkpoint.every == 0:\n"
        "                    save_checkpoint()\n"
        "                recompute_statistics(evaluated)\n"
        "            elif step and step % settings.checkpoint.every == 0:\n"
        "                save_checkpoint()\n",
        f'{OWN} -k "precise and resumed"',
    ),
    "a heading in a text is a heading": (
        SAMPLES,
        "_TO_ESCAPE.sub(",
        "(lambda _, text: text)(",
        RECORDS,
    ),
    "a cut line may be a heading": (SAMPLES, "    if start:", "    if False:", RECORDS),
    "a message of several lines is several records": (
        "harness/run_folder.py",
        '"\\n    ".join',
        '"\\n".join',
        RECORDS,
    ),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants") / "tree"
    for name in ("harness", "zoo", "tokenizers", "conf", "tests"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def outcome(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    name, *options = shlex.split(tests)
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'tokenizers'}"}
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
def test_a_mutant_is_noticed(copied: Path, name: str) -> None:
    file, old, new, tests = MUTANTS[name]
    before = (REPOSITORY / file).read_text()
    try:
        (copied / file).write_text(before.replace(old, new))
        found = outcome(copied, tests)
    finally:
        (copied / file).write_text(before)
    assert found.returncode == 1, found.stdout
    assert " failed" in found.stdout or "FAILED" in found.stdout, found.stdout
    assert "SyntaxError" not in found.stdout


@pytest.mark.long
@pytest.mark.parametrize("tests", sorted({tests for *_, tests in MUTANTS.values()}))
def test_without_a_mutant_they_pass(copied: Path, tests: str) -> None:
    assert outcome(copied, tests).returncode == 0
