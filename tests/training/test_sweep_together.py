"""Settings of a sweep that go together, and its jobs spread over devices."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from harness.cli import spread
from harness.cli.overrides import prepared
from harness.common.errors import UsageError
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.verdict import notes
from harness.runs.summary import read_summary
from tests.training.sweeps import Command, folders, trace, without_model


def jobs(*typed: str) -> list[list[str]]:
    overrides = OverridesParser.create().parse_overrides(prepared(typed, lambda group: []))
    (found,) = BasicSweeper.split_arguments(overrides, None)
    return found


def test_settings_that_go_together() -> None:
    both = "together=model=gpt optimizer.lr=0.01 | model=mlp optimizer.lr=0.02,0.03"
    assert jobs(both, "seed=0,1") == [
        ["model=gpt", "optimizer.lr=0.01", "seed=0"],
        ["model=gpt", "optimizer.lr=0.01", "seed=1"],
        ["model=mlp", "optimizer.lr=0.02", "seed=0"],
        ["model=mlp", "optimizer.lr=0.02", "seed=1"],
        ["model=mlp", "optimizer.lr=0.03", "seed=0"],
        ["model=mlp", "optimizer.lr=0.03", "seed=1"],
    ]
    assert jobs("together=a=1 | a=2", "together=b=3 c=4 | b=5", "d=6") == [
        ["b=3", "c=4", "a=1", "d=6"],
        ["b=3", "c=4", "a=2", "d=6"],
        ["b=5", "a=1", "d=6"],
        ["b=5", "a=2", "d=6"],
    ]
    # Quotes as in a shell, lists, and texts with spaces.
    assert jobs("together=x=[1,2] 'y=\"a | b\"'") != []
    assert jobs("together=logger=[local,wandb] 'data.path=\"/a b\"' | data.path=c") == [
        ["logger=[wandb]", 'data.path="/a b"'],
        ["data.path=c"],
    ]
    assert jobs("seed=0,1") == [["seed=0"], ["seed=1"]]  # as Hydra's own
    once = prepared([both, "seed=0,1"], lambda group: [])
    assert prepared(once, lambda group: []) == once  # which Hydra asks for


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("together=model=gpt | wavenet",), "should be settings that go together"),
        (("together=",), "should be settings that go together"),
        (("together=a='b",), "No closing quotation"),
        (("together=seed=0 model=gpt | seed=1 model=mlp", "seed=3"), "seed is given beside it"),
        (("together=logger.wandb.api_key=1234 | seed=1",), "secret"),
    ],
)
def test_what_can_not_go_together(typed: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        jobs(*typed)
    assert message in str(refused.value)


def test_what_devices_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(devices: object) -> list[str]:
        return spread.devices_of(OmegaConf.create({"sweep": {"devices": devices}}))

    assert named(None) == []
    assert named(["cpu", "cpu"]) == ["cpu", "cpu"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert named("auto") == ["cuda:0", "cuda:1", "cuda:2"]
    for wrong in ("cuda", [0], ["gpu"]):
        with pytest.raises(UsageError, match=r"sweep\.devices"):
            named(wrong)
    # A process sees the one it is given, under the name that its settings have.
    assert spread._visible("cuda:1") == {spread.VISIBLE: "1"}
    monkeypatch.setenv(spread.VISIBLE, "4,6")
    assert spread._visible("cuda:1") == {spread.VISIBLE: "6"}
    assert spread._visible("cpu") == {spread.VISIBLE: ""}


def test_as_many_at_a_time_as_there_are_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretended devices, and jobs that meet: a pipe is opened only if both ends are there."""
    program = tmp_path / "job"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "import signal\nsignal.alarm(60)\n"  # one after another they would wait for ever
        "number, config = int(sys.argv[3]), sys.stdin.read()\n"
        f"pipe = {str(tmp_path)!r} + f'/{{number // 2}}'\n"
        "open(pipe, 'rb' if number % 2 else 'wb').close()\n"
        f"open({str(tmp_path)!r} + f'/out-{{number}}', 'w').write("
        f"os.environ[{spread.VISIBLE!r}] + ' ' + config)\n"
        "sys.exit(3 if number == 2 else 0)\n"
    )
    program.chmod(0o755)
    for pair in range(2):
        os.mkfifo(tmp_path / str(pair))
    monkeypatch.setattr(sys, "executable", str(program))
    codes = spread.spread(
        [[str(n)] for n in range(4)], [b"a", b"b", b"c", b"d"], ["cuda:0", "cuda:1"]
    )
    assert codes == [0, 0, 3, 0]
    out = [(tmp_path / f"out-{number}").read_text().split() for number in range(4)]
    assert [config for _, config in out] == list("abcd")
    assert {device for device, _ in out} == {"0", "1"}
    assert out[0][0] != out[1][0]


@pytest.mark.long
def test_a_spread_sweep_equals_one_after_another(
    command: Command, small: tuple[str, ...], tmp_path: Path
) -> None:
    """On two devices that are pretended to be: the same runs, bit for bit, and marked."""
    both = "together=model=bigram optimizer.lr=0.01 | model=gpt optimizer.lr=0.02"
    chosen = ("train", "-m", both, "seed=0,1", *without_model(small))
    one = command(*chosen, f"hydra.sweep.dir={tmp_path}/one")
    two = command(*chosen, f"hydra.sweep.dir={tmp_path}/two", "sweep.devices=[cpu,cpu]")
    assert (one.code, two.code) == (0, 0), two.err
    names = folders(tmp_path / "one")
    assert names == folders(tmp_path / "two")
    assert names == ["0-bigram-char-s0", "1-bigram-char-s1", "2-gpt-char-s0", "3-gpt-char-s1"]
    for name in names:
        assert trace(tmp_path / "one" / name) == trace(tmp_path / "two" / name)
        assert read_summary(tmp_path / "one" / name).at_once is None
        assert read_summary(tmp_path / "two" / name).at_once == 2
        assert read_summary(tmp_path / "two" / name).candidate is None
    said = " ".join(notes(compare_runs(find_runs([tmp_path / "two"]))))
    assert "All ranked runs were trained beside others of their sweep, up to 2 at a time" in said
    assert "beside others" not in " ".join(notes(compare_runs(find_runs([tmp_path / "one"]))))
    again = command(*chosen, f"hydra.sweep.dir={tmp_path}/two", "resume=true")
    assert "4 of 4 jobs are finished" in again.err
