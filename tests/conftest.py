"""What every test may use, and what none may touch: the network and the user's cache."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before anything imports transformers, which would else retry every look-up for a minute.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
import torch
from omegaconf import OmegaConf

from harness import (
    ablate,
    baseline,
    bench,
    compare,
    compress,
    dashboard,
    decompress,
    doctor,
    evaluate,
    inside,
    judge,
    new,
    prepare,
    sample,
    search,
    verify,
)
from harness import train as training_command
from harness.cli.hydra_app import compose
from harness.common.paths import REPOSITORY
from harness.live import __main__ as live
from tests.report.comparing import write_sweep
from tests.small_runs import GPT_SMALL, TEXT, train
from tests.waiting import GUARD

# A shell that starts the suite in the background has Ctrl-C ignored, by what tests start, too; and
# nohup the end of the terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# By itself Hypothesis fails an example that takes longer than 200 ms.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

GROUPS = ("data", "tokenizer", "model", "optimizer", "schedule")
CORPUS = "tiny_shakespeare.txt"
TOOLS: dict[str, Callable[[], object]] = {
    "train": training_command.main,
    "bench": bench.main,
    "prepare": prepare.main,
    "evaluate": evaluate.main,
    "sample": sample.main,
    "compress": compress.main,
    "decompress": decompress.main,
    "compare": compare.main,
    "search": search.main,
    "ablate": ablate.main,
    "baseline": baseline.main,
    "verify": verify.main,
    "inside": inside.main,
    "judge": judge.main,
    "new": new.main,
    "dashboard": dashboard.main,
    "doctor": doctor.main,
    "live": live.main,
}


def plain(*overrides: str) -> dict[str, Any]:
    """A composed configuration as plain values."""
    cfg = compose(list(overrides))
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    found: Any = OmegaConf.to_container(cfg, resolve=True)
    return found


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logs may hold lone surrogates, which a worker can't send."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_collection_finish() -> None:
    """Configurations are made of so many small objects that looking for cycles among them, and all
    that is imported, would take a fifth of the suite's time: each module's are looked for once, and
    not among what an earlier one left."""
    gc.disable()
    _collect()


def _collect() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _cycles_are_collected_once_a_module() -> Generator[None]:
    yield
    _collect()


@pytest.fixture(autouse=True, scope="module")
def _a_module_draws_the_same_whatever_ran_before() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _a_test_draws_the_same_whatever_ran_before() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _handlers_end_with_their_test() -> Generator[None]:
    """A handler that is made while a test has a stderr of its own, by a library that is imported,
    would write to a closed file for ever after."""

    def found() -> list[tuple[logging.Logger, logging.Handler]]:
        known = [logging.root, *logging.root.manager.loggerDict.values()]
        return [
            (logger, handler)
            for logger in known
            if isinstance(logger, logging.Logger)
            for handler in logger.handlers
            if type(handler) is logging.StreamHandler
        ]

    before = {id(handler) for _, handler in found()}
    yield
    for logger, handler in found():
        if id(handler) not in before:
            logger.removeHandler(handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread_and_a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    torch.set_num_threads(1)
    # No test pulls the plug, and a slow disk takes longer for it than a small training for itself.
    os.fsync = lambda descriptor: None
    # What the configuration's `cache` starts from, here and in every process that a test starts.
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder that holds the real corpus. Where $ZOO_ASSETS is set it may not be missing."""
    named = os.environ.get("ZOO_ASSETS")
    folders = [Path(named)] if named else [REPOSITORY / "../shared/assets", REPOSITORY / "assets"]
    for folder in folders:
        if (folder / CORPUS).is_file():
            return folder.resolve()
    if named:
        pytest.fail(f"ZOO_ASSETS={named} does not hold {CORPUS}")
    pytest.skip(f"{CORPUS} is in none of: {', '.join(map(str, folders))}; set ZOO_ASSETS")


@pytest.fixture
def small_text(tmp_path: Path) -> Path:
    """A text file of a few kilobytes, not all ASCII."""
    path = tmp_path / "small.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def train_run(tmp_path: Path) -> Callable[..., Path]:
    """train_run(*overrides) trains for a second in this process; returns the run's folder."""
    count = 0

    def make(*overrides: str, code: int = 0) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"trained-{count}"
        assert train(folder, *overrides) == code
        return folder / "run"

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT that was trained; for reading only."""
    folder = tmp_path_factory.mktemp("finished") / "gpt"
    assert train(folder, *GPT_SMALL, "train.steps=30", "optimizer.lr=1e-2") == 0
    return folder / "run"


@pytest.fixture(scope="session")
def finished_bigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbounded model over bytes, which can produce what is no UTF-8."""
    folder = tmp_path_factory.mktemp("finished") / "bigram"
    assert train(folder, "model=bigram", "tokenizer=bytes", "train.steps=2") == 0
    return folder / "run"


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """command("train", "model=gpt", …) runs `python -m harness.train model=gpt …` in this process,
    in the empty folder tmp_path/here."""
    here = tmp_path / "here"
    here.mkdir()

    def run(tool: str, *arguments: object) -> Ended:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(here)
            patch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
            patch.setenv("HYDRA_FULL_ERROR", "1")  # as run_hydra sets it, but undone afterwards
            with pytest.raises(SystemExit) as ended:
                TOOLS[tool]()
        printed = capsys.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0 if code is None else 1, *printed)

    return run


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """process("train", …) runs the real command, in the folder tmp_path/here."""
    here = tmp_path / "here"

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        here.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-m", f"harness.{tool}", *map(str, arguments)],
            cwd=here, capture_output=True, text=True, timeout=GUARD,
        )  # fmt: skip

    return run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Run folders made by hand: three models with three seeds, and what must not be ranked."""
    return write_sweep(tmp_path / "sweep")
