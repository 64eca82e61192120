"""No secret of the environment or the command line in any file of a run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness.common.errors import UsageError
from harness.config import secrets
from harness.config.saved import load_settings
from harness.config.settings import read_settings
from tests.conftest import Ended, plain
from tests.small_runs import SMALL

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
        "data.url=https://ghp_secretsecret@raw.example.org/x",
        *(
            f'data.url="https://example.org/x?{name}=1234&b=2"'
            for name in ("token", "a=1&access_token", "key", "X-Amz-Signature", "sig", "apiKey")
        ),
        "+logger.w={_target_:a.B,api_key:1234}",
        "+logger.w={_target_:a.B,more:[{inner:{pgpassword:1234}}]}",
        "+logger.w={_target_:a.B},{_target_:c.D,api_key:1234}",
        "+logger.w=choice({_target_:a.B},{_target_:c.D,api_key:1234})",
        "data.url=https://example.org,https://ghp_secretsecret@example.org",
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


@pytest.mark.parametrize(
    "content",
    [
        "hydra: {sweeper: {params: {+logger.w: '{api_key: hush-4f9a1c77e2}, {a: 1}'}}}",
        "eval: {prompt: 'https://hush-4f9a1c77e2@example.org/x'}",  # which no job has in the end
        "eval: {api_key: hush-4f9a1c77e2}",
    ],
)
def test_a_sweep_begins_with_none(
    content: str, command: Callable[..., Ended], small_text: Path, tmp_path: Path
) -> None:
    """What its jobs have in common is written before the first of them is read."""
    recipe = tmp_path / "conf" / "experiment" / "leaky.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(f"# @package _global_\n{content}\n")
    ended = command(
        "train", "-m", "--config-dir", tmp_path / "conf", "experiment=leaky", *SMALL,
        f"data.path={small_text}", "eval.prompt=a,b", f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )  # fmt: skip
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert "written to the run's folder" in ended.err
    assert SECRET not in ended.err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("more", ["", "rate: .inf"])
def test_a_job_that_was_refused_leaves_none_in_its_folder(
    more: str, command: Callable[..., Ended], small_text: Path, tmp_path: Path
) -> None:
    """Whatever it was refused for first."""
    group = tmp_path / "conf" / "model"
    group.mkdir(parents=True)
    (group / "leaky.yaml").write_text(
        f"_target_: zoo.bigram.Bigram\nurl: https://{SECRET}@example.org\n{more}\n"
    )
    sweep = tmp_path / "sweep"
    ended = command(
        "train", "-m", "--config-dir", tmp_path / "conf", "model=bigram,leaky", *SMALL,
        f"data.path={small_text}", f"cache={tmp_path / 'cache'}", f"hydra.sweep.dir={sweep}",
    )  # fmt: skip
    assert ended.code == 1
    assert "job 1 will fail: " in ended.err
    assert (sweep / "1-leaky-char" / "config.yaml").read_text() == ""
    assert load_settings(sweep / "0-bigram-char-s0" / "config.yaml").seed == 0
    assert holders(sweep) == []


def test_none_can_come_from_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files in conf/ may read the environment."""
    found = plain()
    found["eval"]["prompt"] = f"a {SECRET}"
    read_settings(found)  # one that nobody calls a secret
    monkeypatch.setenv("A_TOKEN", SECRET)
    with pytest.raises(
        UsageError, match=r"eval\.prompt contains the value of the environment variable A"
    ):
        read_settings(found)
    found["eval"]["prompt"] = "a"
    found["model"]["api_key"] = "1234"
    with pytest.raises(UsageError, match=r"model\.api_key: a secret must not be"):
        read_settings(found)


@pytest.mark.parametrize(
    "variable",
    [
        *("PGPASSWORD", "MYSQL_PWD", "REDISPWD", "CLIENTSECRET", "SMTP_PASS", "GITHUB_PAT"),
        *("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_APIKEY", "SVNPASSWD", "DB_PASSWORD_1"),
    ],
)
def test_a_variable_called_like_a_secret(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"eval.prompt=a {SECRET}"
    secrets.reject_override(text)
    monkeypatch.setenv(variable, SECRET)
    with pytest.raises(UsageError, match=f"the environment variable {variable}: "):
        secrets.reject_override(text)


def test_an_address_may_have_a_harmless_parameter() -> None:
    secrets.reject_override("data.url=https://example.org/d?monkey=1&turkey=2")
    for name in ("key", "api-key", "accesskey", "APIKEY"):
        with pytest.raises(UsageError, match="login or a key"):
            secrets.reject_override(f"data.url=https://example.org/d?a=1&{name}=2")


def test_the_value_is_looked_at_and_not_only_its_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comma is escaped on the command line."""
    monkeypatch.setenv("A_TOKEN", "hush,4f9a")
    for text in (r"eval.prompt=hush\,4f9a", r"eval.prompt=b,hush\,4f9a", r"+a=[{b: hush\,4f9a}]"):
        with pytest.raises(UsageError, match="the environment variable A_TOKEN"):
            secrets.reject_override(text)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("A_TOKEN", "the"),  # too short to be one
        ("OLDPWD", SECRET),
        ("TEST_PATH", SECRET),
        ("SECRETARY", SECRET),
        ("TOKENIZERS_PARALLELISM", SECRET),
        ("KEYBOARD_LAYOUT", SECRET),
        ("PWD", SECRET),
    ],
)
def test_what_is_no_secret_is_let_through(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    secrets.reject_override(f"eval.prompt=and {text} again")
    for override in (
        *("train.tokens=3", "eval.sample_tokens=3", "data.url=https://a/b@c:d", "+a={monkeys:1}"),
        *("model=gpt,bigram", "seed=range(0,3)", "~logger.wandb", "eval.prompt=me@example.org"),
        'data.url="https://example.org/a?download=true&keyword=b"',
        "what can't be read: {",
    ):
        secrets.reject_override(override)


def test_a_saved_configuration_reads_no_environment(
    command: Callable[..., Ended], finished_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Or else a run's folder from elsewhere would put our variables into samples and logs."""
    monkeypatch.setenv("A_PLAIN_VARIABLE", SECRET)
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    saved = yaml.safe_load((finished_run / "config.yaml").read_text())
    saved["eval"]["prompt"] = "${oc.env:A_PLAIN_VARIABLE}"
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    assert load_settings(run / "config.yaml").eval.prompt == "${oc.env:A_PLAIN_VARIABLE}"
    ended = command("train", f"run_dir={run}", "resume=true")
    assert ended.code == 0
    assert SECRET not in ended.err + ended.out
    assert holders(run) == []


@pytest.mark.parametrize(
    "logger", ["[]", pytest.param("[wandb,tensorboard]", marks=pytest.mark.long)]
)
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
