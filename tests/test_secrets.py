"""No secret of the environment or the command line in any file of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness import config, secrets
from harness.errors import UsageError

from .conftest import Ended, plain
from .training import SMALL

SECRET = "hush-4f9a1c77e2"
LOCATION = f"https://someone:{SECRET}@example.org/repository.git"


def holders(folder: Path) -> list[Path]:
    """The files below a folder, of any format, that hold the secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("mode", [(), ("-m",)])
@pytest.mark.parametrize(
    "override",
    [
        "eval.prompt=${oc.env:A_TOKEN}",
        "eval.prompt='a ${oc.env:HOME}'",
        "hydra.sweep.dir=${oc.env:A_TOKEN}",
        "+model.more={a:{b:'${oc.env:A_TOKEN}'}}",
        f"eval.prompt={SECRET}",
        f"run_dir=/somewhere/{SECRET}/run",
        f"+{SECRET}=1",
        "+logger.local.api_key=1234",
        "+model.password=1234",
        "++data.hub.access_token=1234",
        f"data.url={LOCATION.replace(SECRET, 'guess')}",
    ],
)
def test_none_can_be_typed(
    mode: tuple[str, ...], override: str, command: Callable[..., Ended],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("A_TOKEN", SECRET)
    ended = command("train", *mode, override)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert "run's folder" in ended.err
    assert SECRET not in ended.err + ended.out
    assert list((tmp_path / "here").iterdir()) == []


def test_none_can_come_from_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files in conf/ may read the environment."""
    found = plain()
    found["eval"]["prompt"] = f"a {SECRET}"
    config.read(found)  # one that nobody calls a secret
    monkeypatch.setenv("A_TOKEN", SECRET)
    with pytest.raises(UsageError, match=r"eval\.prompt holds the value of the environment's A_TO"):
        config.read(found)
    found["eval"]["prompt"] = "a"
    found["model"]["api_key"] = "1234"
    with pytest.raises(UsageError, match=r"model\.api_key: no secret belongs"):
        config.read(found)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("A_TOKEN", "the"),  # too short to be one
        ("TOKENIZERS_PARALLELISM", SECRET),
        ("KEYBOARD_LAYOUT", SECRET),
        ("PWD", SECRET),
    ],
)
def test_what_is_no_secret_is_let_through(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    secrets.require_none_typed(f"eval.prompt=and {text} again")
    for override in ("train.tokens=3", "eval.sample_tokens=3", "data.url=https://a/b@c:d"):
        secrets.require_none_typed(override)


def test_a_saved_configuration_reads_no_environment(
    command: Callable[..., Ended], finished_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Or else a run's folder from elsewhere would put our variables into samples and logs."""
    monkeypatch.setenv("A_PLAIN_VARIABLE", SECRET)
    run = tmp_path / "run"
    run.mkdir()
    for path in finished_run.iterdir():
        if path.name != "config.yaml":
            (run / path.name).symlink_to(path)
    saved = yaml.safe_load((finished_run / "config.yaml").read_text())
    saved["eval"]["prompt"] = "${oc.env:A_PLAIN_VARIABLE}"
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    assert config.load(run / "config.yaml").eval.prompt == "${oc.env:A_PLAIN_VARIABLE}"
    ended = command("train", f"run_dir={run}", "resume=true")
    assert ended.code == 0
    assert SECRET not in ended.err + ended.out
    assert holders(run) == []


@pytest.mark.parametrize("logger", ["[]", "[wandb,tensorboard]"])
def test_none_of_the_environment_is_in_any_file_of_a_run(
    logger: str, command: Callable[..., Ended], small_text: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Nor the password in the address of the repository that the command is given in."""
    here = tmp_path / "here"
    for line in (["init", "-q"], ["remote", "add", "origin", LOCATION]):
        subprocess.run(["git", *line], cwd=here, check=True)
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "A_PLAIN_VARIABLE"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    ended = command(
        "train", "model=bigram", *SMALL, f"data.path={small_text}", f"cache={tmp_path / 'cache'}",
        f"run_dir={run}", f"logger={logger}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ("wandb" in logger) == any(run.rglob("*.wandb"))
    assert holders(run) == []
    (run / "control").write_text(f"a{SECRET}b")
    assert holders(run) == [run / "control"]
