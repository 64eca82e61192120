"""What other tools leave in the environment changes no result and breaks nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import locale
from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY, expand, user_cache
from harness.compute.processor import VARIABLES
from harness.data.assets import Assets
from harness.runs import folder as folders
from tests.conftest import Ended
from tests.small_runs import SMALL, TEXT, trace, train
from tests.waiting import GUARD

# No coercion to UTF-8, which Python does by itself for the locale C.
PLAIN_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def started(cwd: Path, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    return subprocess.run(
        [sys.executable, "-m", *line], cwd=cwd, env=environment | variables,
        capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"XDG_CACHE_HOME": "/xdg", "HOME": "/home/me"}, "/xdg"),
        ({"XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache"),
        ({"HOME": "/home/me"}, "/home/me/.cache"),
    ],
)
def test_the_users_cache(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_cache() == Path(expected)
    assert Assets.own().cache == Path(expected) / "language-model-zoo"
    assert Assets.of([], "~/mine").cache == Path("/home/me/mine")


def test_without_a_home_what_needs_one_is_one_line(
    monkeypatch: pytest.MonkeyPatch, command: Callable[..., Ended], small_text: Path
) -> None:
    def nobody(uid: object) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(UsageError, match="~/x: no home folder is known; set HOME"):
        expand("~/x")
    text = ("data=text", f"data.path={small_text}", "model=bigram", "device=cpu")
    ended = command("train", *text, "train.steps=1")
    assert ended.code == 2
    assert ended.err.endswith("error: ~/.cache: no home folder is known; set HOME\n")
    assert command("train", *text, "train.steps=1", "cache=cache").code == 0


@pytest.mark.long
def test_a_locale_without_utf8_opens_the_same_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that was made in another one."""
    (place := tmp_path / "é").mkdir()
    (place / "corpus.txt").write_text(TEXT)
    assert train(place / "a", "model=bigram", f'data.path="{place}/corpus.txt"') == 0
    run = str(place / "a" / "run")
    line = ("harness.train", f'run_dir="{run}"', "resume=true", "train.steps=9")
    ended = started(tmp_path, *line, **PLAIN_C, XDG_CACHE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    config = (place / "a" / "run" / "config.yaml").read_text()
    assert f"{place}/corpus.txt" in config


def test_utf8_mode_is_entered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: begun.append(words))
    monkeypatch.setattr(os, "environ", {})
    locale.require_utf8()
    assert begun == []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "harness.train", "a b"])
    locale.require_utf8()
    assert begun == [[sys.executable, "-X", "utf8", "-m", "harness.train", "a b"]]
    assert os.environ["PYTHONUTF8"] == "1"


def test_the_commit_is_of_the_codes_own_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of one around the environment that it lies in, nor of one that git's hooks name."""
    git = folders.git.__wrapped__
    (around := tmp_path / "around").mkdir()
    subprocess.run(["git", "init", "-q", around], check=True)
    who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    line = ["git", "-C", around, *who, "commit", "-q", "--allow-empty", "-m", "mine"]
    subprocess.run(line, check=True)
    own = git()
    monkeypatch.setenv("GIT_DIR", str(around / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(around))
    assert git() == own
    (inside := around / "venv" / "site-packages").mkdir(parents=True)
    monkeypatch.setattr(folders, "REPOSITORY", inside)
    assert git() == {"commit": None, "dirty": None}
    monkeypatch.setattr(folders, "REPOSITORY", around)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert len(str(git()["commit"])) == 40


# Variables of our dependencies and their tools, with values that some tool gives them.
OF_OTHERS = {
    "COLUMNS": "x", "LINES": "-1", "TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": "1",
    "TQDM_DISABLE": "0", "TQDM_MININTERVAL": "9", "PYTHONHASHSEED": "7", "CI": "true",
    "MPLBACKEND": "nope", "MPLCONFIGDIR": "/dev/null", "HYDRA_FULL_ERROR": "0", "OC_CAUSE": "1",
    "HF_HOME": "/dev/null", "TRANSFORMERS_CACHE": "/dev/null", "TOKENIZERS_PARALLELISM": "true",
    "TIKTOKEN_CACHE_DIR": "/dev/null", "PIP_TARGET": "/dev/null", "PIP_REQUIRE_VIRTUALENV": "1",
    "MASTER_ADDR": "nowhere", "MASTER_PORT": "x", "TORCH_HOME": "/dev/null",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "SLURM_PROCID": "3", "SLURM_NTASKS": "4",
    "OMPI_COMM_WORLD_RANK": "2", "WANDB_MODE": "disabled", "WANDB_PROJECT": "a/b",
    "TENSORBOARD_PROXY_URL": "x", "TRACKIO_SPACE_ID": "me/mine", "GIT_DIR": "/dev/null",
    "TORCH_LOGS": "", "TORCH_SHOW_CPP_STACKTRACES": "1", "TORCH_CPP_LOG_LEVEL": "INFO",
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL", "TORCHDYNAMO_DISABLE": "1", "TORCH_COMPILE_DISABLE": "1",
    "KMP_DUPLICATE_LIB_OK": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "PYTORCH_JIT": "0",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT", "NVIDIA_TF32_OVERRIDE": "0",
    "SOURCE_DATE_EPOCH": "0", "TZ": "Asia/Tokyo", "LC_NUMERIC": "de_DE.UTF-8",
}  # fmt: skip


@pytest.mark.long
def test_the_variables_of_others_change_no_number(tmp_path: Path) -> None:
    """A training and its report, under all of them and under none."""
    chosen = ("model=bigram", "train.steps=4")
    assert train(tmp_path / "none", *chosen) == 0
    own = [f"data.path={tmp_path / 'corpus.txt'}", f"cache={tmp_path / 'cache'}"]
    run = tmp_path / "others" / "run"
    for line in (
        ("harness.train", *SMALL, *own, *chosen, f"run_dir={run}"),
        ("harness.compare", str(run), "--markdown", f"{run}.md", "--out", f"{run}.html"),
    ):
        ended = started(tmp_path, *line, **OF_OTHERS)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
    assert trace(tmp_path / "others") == trace(tmp_path / "none")
    samples = [(tmp_path / name / "run/samples.txt").read_bytes() for name in ("none", "others")]
    assert samples[0] == samples[1]


def test_every_variable_that_is_read_here_is_documented() -> None:
    page = (REPOSITORY / "docs" / "environment.md").read_text()
    read = re.compile(r"environ(?:\.get|\.pop|\.setdefault)?[(\[]\s*\"([A-Z_]+)\"")
    found = {
        name
        for package in ("harness", "zoo", "tokenizers")
        for path in (REPOSITORY / package).rglob("*.py")
        for name in read.findall(path.read_text())
    }
    found |= OF_OTHERS.keys() | set(VARIABLES)
    assert len(found) > 15
    assert {name for name in found if f"`{name}`" not in page} == set()
