"""Trainings that the page starts, and the command that starts the page."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.live import trainings
from tests.conftest import Ended
from tests.live.live_server import Client
from tests.waiting import GUARD

# Trainings


def test_a_command_line_is_split_as_a_shell_would() -> None:
    assert trainings.split("model=gpt 'eval.prompt=\"a b\"'") == ["model=gpt", 'eval.prompt="a b"']
    assert trainings.split("python -m harness.train -m seed=0,1") == ["-m", "seed=0,1"]
    assert trainings.split("model=gpt; rm -rf $HOME `x`") == [
        "model=gpt;", "rm", "-rf", "$HOME", "`x`",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("'", "No closing quotation"),
        ("--config-dir=/tmp model=gpt", "only settings"),
        ("--help", "only settings"),
        ("seed=\0", "NUL"),
    ],
)
def test_what_is_no_setting_starts_nothing(
    line: str, said: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings.subprocess, "Popen", None)
    status, answer = client.post("start", {"command": line})
    assert status == 409
    assert said in answer["error"]


@pytest.mark.parametrize(
    "name",
    ["a b", "it's a [run], = {x}", 'q"uo\\te\\\\"', "${oc.env:HOME}", "é ∑", "tail\\", "#,:"],
)
def test_a_folder_of_any_name_is_gone_on_with(name: str) -> None:
    from harness.cli.hydra_app import compose
    from harness.config.settings import read_settings

    folder = Path("/somewhere") / name
    where, resume = trainings.resume(folder)
    assert read_settings(compose([where])).run_dir == str(folder)
    assert resume == "resume=true"


# The command


def test_a_mistake_of_the_command_is_one_line(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    def mistake(*arguments: object) -> str:
        ended = command("live", *arguments)
        assert ended.code == 2
        (line,) = ended.err.splitlines()
        return line

    assert "no such folder" in mistake(tmp_path / "nope")
    assert "there is no option --prot. Did you mean --port?" in mistake("--prot", "1")
    assert "--port 70000 must be from 0 to 65535" in mistake("--port", "70000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 can't be had" in mistake("--port", port, tmp_path)


def test_the_page_needs_no_torch() -> None:
    script = "import sys, harness.live.server; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=GUARD
    )
    assert done.stdout == "set()\n", done.stderr
