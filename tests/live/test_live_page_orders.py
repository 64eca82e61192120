"""The live page in a real browser: trainings are started, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.browser import Browser, click, texts, type_into
from tests.live.live_server import make_run
from tests.live.logged import rows
from tests.small_runs import SMALL, TEXT
from tests.waiting import GUARD, wait_until


def test_why_a_run_can_not_be_gone_on_with_stays_in_sight(
    tmp_path: Path, visit: Callable[..., Browser]
) -> None:
    make_run(tmp_path / "a", rows(3, 2.0), status="stopped")
    page = visit()
    click(page, ".run a")
    click(page, ".title button", "Go on with it")
    page.wait("document.querySelector('.one .note').textContent.includes('has no value')")
    asked = "performance.getEntriesByType('resource').filter((e) => /api.runs/.test(e.name)).length"
    page.wait(f"{asked} > {page.run(asked) + 1}")
    assert "has no value" in texts(page, ".one .note:not([hidden])")[0]
    assert texts(page, ".title button:not([disabled])") == ["Go on with it"]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The real command, in an empty folder."""
    (tmp_path / "corpus.txt").write_text(TEXT)
    server = subprocess.Popen(
        [sys.executable, "-m", "harness.live", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background may have Ctrl-C ignored, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    yield server
    server.kill()
    server.communicate()
    for sign in tmp_path.glob("runs/*/process.json"):  # of a test that failed half-way
        os.kill(json.loads(sign.read_text())["pid"], signal.SIGKILL)


def summary(run: str, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / run / "summary.json").read_text())
    return found


def test_trainings_are_started_watched_stopped_and_gone_on_with(
    live: subprocess.Popen[str], tmp_path: Path, browser: Browser
) -> None:
    common = " ".join([
        *(setting for setting in SMALL if not setting.startswith("train.steps")),
        "data.path=corpus.txt", "cache=cache", "train.steps=1000000", "model.n_layer=1",
        "eval.every=100000",
    ])  # fmt: skip
    browser.events.clear()
    browser.look()
    assert live.stdout is not None
    browser.open(live.stdout.readline().strip())
    browser.wait("document.body.innerText.includes('No runs here yet')")

    # A recipe is what it says: the model that the line named goes.
    click(browser, "#start")
    choose = "const s = document.querySelector('dialog select'); s.value = 'ladder_1_bigram';"
    browser.run(f"(() => {{ {choose} s.dispatchEvent(new Event('change')) }})()")
    assert browser.run("document.querySelector('dialog textarea').value") == (
        "experiment=ladder_1_bigram"
    )
    assert texts(browser, "dialog label small")[0].startswith("Step 1 of 9 from the bigram")
    click(browser, "dialog button", "Close")

    # A mistake is answered in the training's own words, and leaves nothing behind.
    click(browser, "#start")
    type_into(browser, "dialog textarea", f"model=gtp {common}")
    click(browser, "dialog button", "Train")
    browser.wait("document.querySelector('dialog .note').textContent.includes('Did you mean gpt?')")
    assert not (tmp_path / "runs").exists()

    for name in ("one", "two"):
        type_into(browser, "dialog textarea", f"model=gpt run_dir=runs/{name} {common}")
        click(browser, "dialog button", "Train")
        browser.wait("location.hash.startsWith('#/run/')")
        browser.run("location.hash = '#/'")
        click(browser, "#start")
    click(browser, "dialog button", "Close")
    browser.wait("document.querySelectorAll('.badge.running').length === 2")
    browser.wait("document.title === '(2) The zoo'")
    # Both curves go on while one looks.
    lines = "[...document.querySelectorAll('.picture:nth-child(2) .line')]"
    drawn = f"{lines}.map((line) => line.getAttribute('d'))"
    browser.wait(f"{drawn}.length === 2")
    before = browser.run(drawn)
    browser.wait(f"{drawn}.every((d, k) => d !== {json.dumps(before)}[k])")

    click(browser, ".run a")
    click(browser, ".title button", "Stop")
    assert summary("one", tmp_path / "runs")["status"] == "running"  # one click is not enough
    click(browser, ".title button", "Really?")
    browser.wait("!!document.querySelector('.title .badge.stopped')")
    stopped = "two" if summary("two", tmp_path / "runs")["status"] == "stopped" else "one"
    other = "one" if stopped == "two" else "two"
    assert summary(other, tmp_path / "runs")["status"] == "running"
    steps = summary(stopped, tmp_path / "runs")["train"]["steps"]
    saved = [path.name for path in (tmp_path / "runs" / stopped / "checkpoints").iterdir()]
    assert any(f"{steps}" in name for name in saved), saved

    click(browser, ".title button", "Go on with it")
    browser.wait("!!document.querySelector('.title .badge.running')")
    wait_until(lambda: rows_of(tmp_path / "runs" / stopped) > steps + 1)
    assert browser.troubles() == []

    # The page ends; what it began goes on.
    live.send_signal(signal.SIGINT)
    _, err = live.communicate(timeout=GUARD)
    assert (live.returncode, "Traceback" in err) == (0, False)
    browser.wait("!document.querySelector('#offline').hidden")
    for name in ("one", "two"):
        before = rows_of(tmp_path / "runs" / name)
        wait_until(lambda folder=tmp_path / "runs" / name, rows=before: rows_of(folder) > rows)
    for name in ("one", "two"):
        sign = json.loads((tmp_path / "runs" / name / "process.json").read_text())
        os.kill(sign["pid"], signal.SIGTERM)
    wait_until(
        lambda: all(summary(n, tmp_path / "runs")["status"] == "stopped" for n in ("one", "two"))
    )
    numbers = [
        json.loads(line)["step"]
        for line in (tmp_path / "runs" / stopped / "metrics.jsonl").read_text().splitlines()
    ]
    assert numbers == list(range(len(numbers)))


def rows_of(folder: Path) -> int:
    return (folder / "metrics.jsonl").read_text().count("\n")
