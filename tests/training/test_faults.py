"""Faults that really happen to a training: kill -9, full disks, flipped bits, no memory, NaN.

Lives that are to die, or to run out of something, are processes of their own (`harness.drill`).
"""

from __future__ import annotations

import functools
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch

from harness import drill as drill_command
from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.compute.device import Compute
from harness.config.keys import names_in_group
from harness.config.settings import BatchNorm
from harness.diagnostics import drill
from harness.runs import checkpoint
from harness.runs.folder import RunFolder
from harness.training import loop, trainer
from harness.training.guards import (
    MAX_SKIPS_IN_A_ROW,
    SPIKE_INTERVAL,
    SPIKE_WINDOW,
    WARNING_INTERVAL,
    Guard,
    NonFiniteError,
)
from tests.small_runs import GPT_SMALL, SMALL, TEXT, rows, summary, trace, train
from tests.waiting import GUARD, wait_until
from tests.zoo_models import NAMES


def overrides(folder: Path, *more: str) -> list[str]:
    """Of a training of a second or two in a process of its own; corpus and cache in `folder`."""
    corpus = folder / "corpus.txt"
    corpus.write_text(TEXT)
    return [*SMALL, *GPT_SMALL, f"data.path={corpus}", f"cache={folder / 'cache'}", *more]


def steps_saved(folder: Path) -> list[int]:
    return checkpoint.list_steps(folder / "run" / "checkpoints", "step")


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in (folder / "run").rglob(".*")]


# Killed


def held(step: int, until: Path, live: drill.Target, chosen: list[str], folder: Path) -> None:
    """A life that waits for a file to be there, while the batch of a step is drawn: whoever is to
    end it comes in time, however slow the machine is. A life called whole is left alone."""
    draw = loop.draw_batch

    def drawing(ids, seed, now, *rest):  # noqa: ANN001, ANN002, ANN202
        if now == step and folder.name != "whole":
            wait_until(until.exists)
        return draw(ids, seed, now, *rest)

    vars(loop)["draw_batch"] = drawing
    live(chosen, folder)


def rehearse(
    chosen: list[str], folder: Path, steps: int, kills: int, live: drill.Target, seed: int = 0
) -> list[drill.Kill]:
    """The drill, of a training that does not end before all its kills have come."""
    until = folder / "all-killed"

    def report(line: str) -> None:
        if line.startswith(f"kill {kills:>3}:"):
            until.touch()

    chosen = [*chosen, f"train.steps={steps}"]
    live = functools.partial(held, steps - 1, until, live)
    return drill.train_twice(chosen, folder, kills, seed, report, live)


def test_killed_again_and_again_it_ends_as_if_left_alone(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "eval.every=10", "model.dropout=0.1")
    deaths = rehearse(chosen, tmp_path, 40, 5, drill.train_or_resume)
    assert len(deaths) == 5
    assert drill.differences(tmp_path / "whole", tmp_path / "killed") == []
    assert not leftovers(tmp_path / "killed")


OPTIMIZERS, SCHEDULES = names_in_group("optimizer"), names_in_group("schedule")
EXTRAS = (
    ("train.ema=0.9", "train.on_non_finite=skip"),
    ("train.accumulate=3", "train.label_smoothing=0.1"),
    ("precision=bf16", "train.max_norm=2.0"),
    ("precision=fp16", "observe=full"),
    ("train.patience=2", "train.clip=0.1"),
)
BATCH_NORMS = tuple(
    (f"train.batch_norm={mode}", "model.norm=batch_norm", "model.bias=false")
    for mode in get_args(BatchNorm)
)
CASES = {
    name: [
        *(f"model={name}", f"optimizer={OPTIMIZERS[number % len(OPTIMIZERS)]}"),
        *(f"schedule={SCHEDULES[number % len(SCHEDULES)]}", *EXTRAS[number % len(EXTRAS)]),
    ]
    for number, name in enumerate(NAMES)
} | {f"mlp {mode[0]}": ["model=mlp", "train.ema=0.8", *mode] for mode in BATCH_NORMS}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_twenty_kills_change_nothing(tmp_path: Path, case: str) -> None:
    """Every architecture, and among them every optimizer, schedule and precision, whatever keeps
    state, and each mode of batch normalization."""
    rhythm = ("train.steps=60", "train.seq_len=32", "eval.every=20", "checkpoint.every=3")
    chosen = [o for o in overrides(tmp_path, *rhythm) if o not in GPT_SMALL]
    deaths = drill.train_twice([*chosen, *CASES[case]], tmp_path, kills=20, report=print)
    print(f"{case}: {len(deaths)} kills, {sum(death.writing for death in deaths)} while writing")
    assert len(deaths) == 20
    assert drill.differences(tmp_path / "whole", tmp_path / "killed") == []


def forgetful(chosen: list[str], folder: Path) -> None:
    """A life that goes on without what the optimizer knew."""
    load = checkpoint.load

    def forgetting(path: Path, kind: str) -> dict | None:
        state = load(path, kind)
        if state is not None and kind == "step":
            state["optimizer"]["state"] = {}
        return state

    checkpoint.load = forgetting
    drill.train_or_resume(chosen, folder)


def test_the_drill_notices_a_piece_of_state_left_out(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "eval.every=10")
    rehearse(chosen, tmp_path, 20, 2, forgetful, seed=1)
    found = drill.differences(tmp_path / "whole", tmp_path / "killed")
    assert any("grad_norm is" in line for line in found)
    assert any(line.startswith("the last checkpoint: model.") for line in found)


def test_the_drill_notices_the_slightest_difference(tmp_path: Path) -> None:
    """One bit in each thing that it compares."""
    life = drill.start(drill.train_or_resume, overrides(tmp_path), tmp_path / "one")
    drill.finish(life, tmp_path / "one")

    def changed(change: Callable[[Path], None]) -> list[str]:
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        shutil.copytree(tmp_path / "one", tmp_path / "other")
        change(tmp_path / "other")
        return drill.differences(tmp_path / "one", tmp_path / "other")

    def replaced(name: str, before: str, after: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            text = (folder / name).read_text()
            assert before in text
            (folder / name).write_text(text.replace(before, after, 1))

        return change

    assert changed(lambda folder: None) == []
    loss = rows(tmp_path / "one")[3]["train/loss"]
    (line,) = changed(replaced("run/metrics.jsonl", repr(loss), repr(math.nextafter(loss, 9.0))))
    assert line.startswith("step 3: train/loss is 0x1.")
    checksum = (tmp_path / "one/batches.txt").read_text().splitlines()[5]
    (line,) = changed(replaced("batches.txt", checksum, checksum + "1"))
    assert line.startswith("step 5: batch is")
    assert changed(replaced("run/samples.txt", "=== step 4", "=== step 5")) != []
    assert changed(replaced("run/summary.json", "finished", "stopped")) != []

    def flip(folder: Path) -> None:
        state = checkpoint.load(folder / "run/checkpoints", "step")
        assert state is not None
        weights = next(iter(state["model"].values())).view(torch.int32).view(-1)
        weights[-1] ^= 1
        del state["format"], state["kind"]
        step = state.pop("step")
        checkpoint.save(folder / "run/checkpoints", "step", step, state, keep=[])

    found = changed(flip)  # of two weights, where they are tied
    assert found
    assert all(line.startswith("the last checkpoint: model.") for line in found)
    with pytest.raises(RunFailure, match="step 2 saw two different batches"):
        changed(lambda folder: (folder / "batches.txt").open("a").write("2 1\n") and None)


def test_the_drill_as_a_person_runs_it(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "train.steps=20", "eval.every=10")
    command = [sys.executable, "-m", "harness.drill", "--kills", "2", *chosen]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=GUARD)
    assert ended.returncode == 0, ended.stderr
    # The training may end before it is killed where the machine does much else.
    assert re.match(r"THE SAME: killed [012] times", ended.stdout)
    assert ended.stdout.count("\n") == 1
    assert "uninterrupted: 20 steps" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train.seconds=5"], "never ends twice"),
        (["run_dir=x"], "the drill's own"),
        (["--kills", "0"], "--kills 0 must be at least 1"),
        (["model=gtp"], "gpt"),
    ],
)
def test_a_drill_that_can_not_be_is_refused(
    arguments: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["drill.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        drill_command.main()
    assert line in capsys.readouterr().err


def test_killed_as_it_began_nothing_is_in_the_way(tmp_path: Path) -> None:
    """Until the folder holds a configuration it has another name."""
    folder = RunFolder(tmp_path / "run")
    seen = []

    def config() -> str:
        seen.append(folder.path.exists())
        return "a: 1\n"

    class Config(str):
        def encode(self, *arguments: str) -> bytes:  # type: ignore[override]
            seen.append(folder.path.exists())
            return super().encode()

    folder.create(Config("a: 1\n"))
    assert seen == [False]
    assert folder.config.read_text() == "a: 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "train.steps=100000", "eval.every=100000")
    life = drill.start(drill.train_or_resume, chosen, tmp_path / "one")
    try:
        wait_until(lambda: drill.last_step(tmp_path / "one") > 5, life.is_alive)
        with pytest.raises(UsageError, match="another process trains there"):
            train(tmp_path / "one", *GPT_SMALL, "resume=true")
        assert life.is_alive()
    finally:
        life.kill()
    life.join()
    assert train(tmp_path / "one", *GPT_SMALL, "train.steps=8", "resume=true") == 0


# Stopped


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)]
)
def test_a_signal_from_outside_stops_it_with_its_work_saved(
    tmp_path: Path, number: int, code: int
) -> None:
    chosen = overrides(tmp_path, "train.steps=30", "eval.every=10", "checkpoint.every=100")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    drill.finish(drill.start(drill.train_or_resume, chosen, whole), whole)
    live = functools.partial(held, 20, tmp_path / "signalled", drill.train_or_resume)
    life = drill.start(live, chosen, cut)
    wait_until(lambda: drill.last_step(cut) >= 7, life.is_alive)
    os.kill(life.pid or 0, number)
    (tmp_path / "signalled").touch()
    life.join(GUARD)
    assert life.exitcode == code
    assert summary(cut)["status"] == "stopped"
    assert steps_saved(cut) == [drill.last_step(cut) + 1]
    assert "work saved; go on" in (cut / "output.txt").read_text()
    drill.finish(drill.start(drill.train_or_resume, chosen, cut), cut)
    assert drill.differences(whole, cut) == []


BATCH_NORM = ("model=mlp", "model.norm=batch_norm", "model.bias=false", "model.n_hidden=16")


def test_a_signal_does_not_wait_for_the_rest_of_a_long_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two micro-batches; what the first one left in batch norm's averages is undone."""
    chosen = (*BATCH_NORM, "train.accumulate=4")
    train(tmp_path / "whole", *chosen)
    add, calls = trainer.add_gradients, [0]

    def adding(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
        calls[0] += 1
        if calls[0] == 4 * 5 + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "add_gradients", adding)
        assert train(tmp_path / "cut", *chosen) == TERMINATED
    assert calls == [4 * 5 + 2]
    assert steps_saved(tmp_path / "cut")[0] == 5
    assert train(tmp_path / "cut", *chosen, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


def test_a_second_ctrl_c_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw = loop.draw_batch

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return draw(ids, seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        assert train(tmp_path / "cut", *GPT_SMALL) == INTERRUPTED
    assert summary(tmp_path / "cut")["status"] == "stopped"
    assert steps_saved(tmp_path / "cut") == [3]
    assert "interrupted at once" in caplog.text
    train(tmp_path / "whole", *GPT_SMALL)
    assert train(tmp_path / "cut", *GPT_SMALL, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


def test_a_device_that_is_not_there_is_refused_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="cuda:9 is not on this machine; it has: cpu, cuda:0 to"):
        Compute.choose("cuda:9", "fp32")


# Damaged


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a run that ended: of steps 6 and 8. For reading only."""
    folder = tmp_path_factory.mktemp("saved") / "a"
    assert train(folder, *GPT_SMALL) == 0
    return folder / "run" / "checkpoints"


def test_whatever_bit_flips_is_noticed(
    saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(saved, tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "step-00000008.pt"
    content, choice = newest.read_bytes(), random.Random(0)
    ends = [0, 1, len(content) - 1]
    for offset in [*ends, *(choice.randrange(len(content)) for _ in range(60))]:
        damaged = bytearray(content)
        damaged[offset] ^= 1 << choice.randrange(8)
        newest.write_bytes(damaged)
        assert not checkpoint.is_intact(newest), offset
    state = checkpoint.load(newest.parent, "step")
    assert state is not None
    assert state["step"] == 6
    assert f"{newest} is damaged" in caplog.text


@pytest.mark.parametrize(
    "damage", ["cut", "longer", "empty", "zeros", "no digest", "digest", "name"]
)
def test_every_damage_is_noticed(saved: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(saved, tmp_path / "checkpoints")
    newest = tmp_path / "checkpoints" / "step-00000008.pt"
    digest, content = newest.with_name(newest.name + ".sha256"), newest.read_bytes()
    if damage in ("cut", "longer", "empty", "zeros"):
        wrong = {"cut": content[:-1], "longer": content + b"\0", "empty": b""}
        newest.write_bytes(wrong.get(damage, bytes(len(content))))
    elif damage == "no digest":
        digest.unlink()
    elif damage == "digest":
        digest.write_bytes(bytes([digest.read_bytes()[0] ^ 1]) + digest.read_bytes()[1:])
    else:  # another checkpoint under this one's name
        older = newest.with_name("step-00000006.pt")
        shutil.copy(older, newest)
        shutil.copy(older.with_name(older.name + ".sha256"), digest)
    state = checkpoint.load(newest.parent, "step")
    assert state is not None
    assert state["step"] == 6


def test_what_does_not_read_back_never_gets_its_name(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that keeps another bit than it was given: flipped after the flush, before the look."""
    shutil.copytree(saved, tmp_path / "checkpoints")
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    flush = checkpoint._flush

    def flipping(file) -> None:  # noqa: ANN001
        flush(file)
        with open(file.name, "r+b") as again:
            again.seek(1000)
            byte = again.read(1)[0]
            again.seek(1000)
            again.write(bytes([byte ^ 4]))

    monkeypatch.setattr(checkpoint, "_flush", flipping)
    with pytest.raises(RunFailure, match="does not read back"):
        checkpoint.save(tmp_path / "checkpoints", "step", 9, {"model": torch.zeros(999)}, keep=[8])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_older_ones_go_only_after_the_new_one_is_verified(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    keep_only, seen = checkpoint.keep_only, []

    def keeping(path: Path, kind: str, steps: list[int]) -> None:
        seen.append([checkpoint.is_intact(folder / "step-00000009.pt"), *steps_in(folder)])
        keep_only(path, kind, steps)

    def steps_in(path: Path) -> list[int]:
        return checkpoint.list_steps(path, "step")

    monkeypatch.setattr(checkpoint, "keep_only", keeping)
    checkpoint.save(folder, "step", 9, {}, keep=[6])
    assert seen == [[True, 9, 8, 6]]
    assert steps_in(folder) == [9, 6]


def test_the_best_of_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    """The newest checkpoint is damaged, and what is resumed from the one before evaluates no more:
    its best weights must still be there."""
    chosen = (*GPT_SMALL, "optimizer.lr=0.01", "checkpoint.every=4", "eval.every=1")
    train(tmp_path / "a", *chosen)
    folder = tmp_path / "a/run/checkpoints"
    assert checkpoint.list_steps(folder, "step") == [8, 4]
    assert checkpoint.list_steps(folder, "best") == [8, 7, 3]  # saved before step 8 was scored
    newest = folder / "step-00000008.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    assert train(tmp_path / "a", *chosen, "eval.every=100", "train.steps=5", "resume=true") == 0
    assert checkpoint.list_steps(folder, "best")[-1] == 3


# No room


def saved_once(folder: Path) -> Callable[[], bool]:
    """Whether a checkpoint was saved, and more will be."""
    return lambda: bool((folder / "run").exists() and steps_saved(folder))


ENDLESS = ("train.steps=100000", "eval.every=100000", "checkpoint.every=20")


def require_failure(folder: Path, words: str) -> None:
    """It ended in words, nothing half written was left, and the checkpoint before is whole."""
    output = (folder / "output.txt").read_text()
    assert words in output
    assert "Traceback" not in output
    assert not leftovers(folder)
    assert checkpoint.load(folder / "run" / "checkpoints", "step") is not None


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux can limit from outside")
def test_a_file_that_may_not_grow_is_like_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    wait_until(saved_once(folder), life.is_alive)
    resource.prlimit(life.pid or 0, resource.RLIMIT_FSIZE, (20_000, 20_000))
    life.join(GUARD)
    assert life.exitcode == 1
    require_failure(folder, "can't be written: File too large")
    done = steps_saved(folder)[0]
    ending = overrides(tmp_path, f"train.steps={done + 5}", "eval.every=100000")
    drill.finish(drill.start(drill.train_or_resume, ending, folder), folder)
    assert [row["step"] for row in rows(folder)] == list(range(done + 6))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 400 kB, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        made = False
    if not made:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_runs_full(tmp_path: Path, small_disk: Path) -> None:
    folder = small_disk / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    life.join(GUARD)  # its rows fill what the checkpoints leave
    assert life.exitcode == 1
    require_failure(folder, "can't be written: No space left on device")


def make_read_only(path: Path) -> list[str]:
    """Returns the command that undoes it. No mode stops root, but a mount does."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        return ["chmod", "755", str(path)]
    for command in (["mount", "--bind", path, path], ["mount", "-o", "remount,ro,bind", path]):
        if subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("nothing here makes a folder read-only for root")
    return ["umount", "-l", str(path)]


def test_a_folder_that_becomes_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    life = drill.start(drill.train_or_resume, overrides(tmp_path, *ENDLESS), folder)
    wait_until(saved_once(folder), life.is_alive)
    undo = make_read_only(folder / "run" / "checkpoints")
    try:
        life.join(GUARD)
        assert life.exitcode == 1
        require_failure(folder, "can't be written: ")
    finally:
        life.kill()
        subprocess.run(undo, check=True)


def short_of_memory(chosen: list[str], folder: Path) -> None:
    """A life that may take some hundred megabytes more than it has by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + 600_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    drill.train_or_resume(chosen, folder)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its size from Linux")
@pytest.mark.parametrize("large", ["train.batch_size=200000000", "model.n_embd=3072"])
def test_without_memory_it_says_what_to_lower(tmp_path: Path, large: str) -> None:
    life = drill.start(short_of_memory, overrides(tmp_path, large), tmp_path / "one")
    life.join(GUARD)
    output = (tmp_path / "one/output.txt").read_text()
    assert life.exitcode == 1, output
    assert "out of memory" in output
    assert "lower train.batch_size=" in output
    assert "Traceback" not in output
    assert summary(tmp_path / "one")["status"] == "failed"


# No number


def poisoned(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """One element of one gradient becomes NaN at these steps (micro-batches are not counted)."""
    add, draw, now = trainer.add_gradients, loop.draw_batch, [0]

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        now[0] = step
        return draw(ids, seed, step, *rest)

    def adding(model, *rest):  # noqa: ANN001, ANN002, ANN202
        nats = add(model, *rest)
        if now[0] in steps:
            weight = next(weight for weight in model.parameters() if weight.grad is not None)
            weight.grad.view(-1)[-1] = math.nan
        return nats

    monkeypatch.setattr(loop, "draw_batch", drawing)
    monkeypatch.setattr(trainer, "add_gradients", adding)


def states(folder: Path) -> list[dict]:
    """What the last two checkpoints hold, the older first."""
    return [
        torch.load(folder / f"run/checkpoints/step-{step:08d}.pt", weights_only=True)
        for step in reversed(steps_saved(folder))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_that_is_skipped_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights, buffers and the optimizer's state, bit for bit, from just before to just after."""
    short = ("train.steps=3", "checkpoint.every=1", "eval.every=100", "train.on_non_finite=skip")
    poisoned(monkeypatch, 2)
    assert train(tmp_path / "a", f"model={name}", "train.seq_len=32", *short) == 0
    before, after = states(tmp_path / "a")
    assert (before["step"], after["step"]) == (2, 3)
    for part in ("model", "optimizer"):
        assert list(drill.differing_keys(before[part], after[part], part)) in (
            [],
            # the schedule goes on
            [f"optimizer.param_groups.{n}.lr" for n in range(9)][: len(groups(before))],
        )
    assert rows(tmp_path / "a")[2]["grad_norm"] is None
    assert summary(tmp_path / "a")["skipped_steps"] == 1


def groups(state: dict) -> list:
    return state["optimizer"].get("param_groups", [])


def test_a_skipped_step_leaves_batch_norms_averages_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("train.steps=3", "checkpoint.every=1", "eval.every=100", "train.ema=0.5")
    poisoned(monkeypatch, 2)
    train(tmp_path / "a", *BATCH_NORM, *short, "train.on_non_finite=skip")
    before, after = states(tmp_path / "a")
    assert any("running_mean" in name for name in before["model"])
    for part in ("model", "average"):
        assert list(drill.differing_keys(before[part], after[part])) == []


def test_without_the_guard_one_element_ruins_every_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through clipping by the norm of all gradients: what the guard is for. What such a training
    would save is refused."""
    poisoned(monkeypatch, 4)
    monkeypatch.setattr(Guard, "allows_update", lambda *arguments, **named: True)
    assert train(tmp_path / "a", *GPT_SMALL) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "non-finite weights in token_embedding.weight" in found["error"]
    assert "and others" in found["error"]
    assert steps_saved(tmp_path / "a") == [3]


def test_it_stops_at_one_element_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, 4)
    assert train(tmp_path / "a", *GPT_SMALL, "train.clip=null") == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 4: loss 3." in found["error"]
    assert "non-finite gradients of token_embedding.weight;" in found["error"]
    assert "train.on_non_finite=skip" in found["error"]
    assert steps_saved(tmp_path / "a") == [3]
    assert train(tmp_path / "a", *GPT_SMALL, "train.clip=null", "train.on_non_finite=skip",
                 "resume=true") == 0  # fmt: skip


def test_skipping_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = MAX_SKIPS_IN_A_ROW + 10
    poisoned(monkeypatch, 2, *range(5, steps))
    chosen = ("model=bigram", f"train.steps={steps}", "train.on_non_finite=skip", "eval.every=100")
    assert train(tmp_path / "a", *chosen) == 1
    found = summary(tmp_path / "a")
    assert f"step {5 + MAX_SKIPS_IN_A_ROW}:" in found["error"]
    assert found["skipped_steps"] == 1 + MAX_SKIPS_IN_A_ROW


def test_a_training_that_really_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    """The rate rises to 1e38 at step 5: after that update the loss is no number."""
    wild = ("schedule=step", "schedule.at=[5]", "schedule.factor=1e41", "optimizer=sgd")
    chosen = (*GPT_SMALL, *wild, "optimizer.lr=0.001", "checkpoint.every=1")
    assert train(tmp_path / "a", *chosen) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 6" in found["error"]
    assert steps_saved(tmp_path / "a") == [6, 5]
    for state in states(tmp_path / "a"):
        assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert max(tensor.abs().max() for tensor in states(tmp_path / "a")[0]["model"].values()) < 2


def test_a_loss_that_jumps_is_reported_once_in_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A rate that is far too high from step 80 on."""
    wild = ("schedule=step", "schedule.at=[80]", "schedule.factor=1e5", "optimizer.lr=0.01")
    chosen = ("model=bigram", *wild, "train.steps=100", "eval.every=100", "train.clip=null")
    assert train(tmp_path / "a", *chosen) == 0
    assert summary(tmp_path / "a")["loss_spikes"] > 3
    assert caplog.text.count("loss spike,") == 1
    assert "step 81: loss spike," in caplog.text


def look(guard: Guard, step: int, loss: float) -> None:
    row = {"step": step, "train/loss": loss, "grad_norm": 1.0}
    assert guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=False)


def test_what_counts_as_a_jump() -> None:
    """Noise and slow or fast descent don't; eight robust standard deviations do."""
    generator, calm = random.Random(0), Guard()
    for step in range(5000):
        look(calm, step, 3 + 5 * math.exp(-step / 20) + generator.gauss(0, 0.1))
    assert calm.spikes == 0
    calm.recent = [1.0, 2.0] * (SPIKE_WINDOW // 2)  # median 1.5, deviations of 0.5
    start = 5000 // SPIKE_INTERVAL * SPIKE_INTERVAL + SPIKE_INTERVAL
    look(calm, start, 1.0)
    assert calm.limit == pytest.approx(1.0 + 8 * 1.4826 * 0.0 + 8 * 0.01, abs=9)
    assert Guard(**vars(calm)) == calm


def test_jumps_are_counted_and_said_once_in_a_hundred_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard()
    for step in range(4 * WARNING_INTERVAL):
        look(
            guard, step, 50.0 if step > SPIKE_WINDOW and step % 10 == 0 else 3.0 + 0.01 * (step % 3)
        )
    jumps = [step for step in range(4 * WARNING_INTERVAL) if step > SPIKE_WINDOW and step % 10 == 0]
    assert guard.spikes == len(jumps)
    assert caplog.text.count("loss spike, 50.000") == math.ceil(
        (jumps[-1] - jumps[0] + 1) / WARNING_INTERVAL
    )


def test_overflow_under_fp16_is_the_scalers_to_mend_but_not_for_ever() -> None:
    row = {"step": 7, "train/loss": 3.0, "grad_norm": math.inf}
    guard = Guard()
    for _ in range(MAX_SKIPS_IN_A_ROW):
        assert not guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=True)
    with pytest.raises(NonFiniteError, match="as in the 20 steps before"):
        guard.allows_update(row, torch.nn.Identity(), skip=False, scaled=True)
    with pytest.raises(NonFiniteError, match="loss nan"):
        Guard().allows_update(
            row | {"train/loss": math.nan}, torch.nn.Identity(), skip=False, scaled=True
        )
