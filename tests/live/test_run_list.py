"""What the live page's server says of the runs in its folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from harness.live import watch
from harness.runs import certificate
from harness.runs.certificate import Check
from tests.live.live_server import make_run, row, serving


def test_what_the_list_says_of_a_run(tmp_path: Path) -> None:
    scores = {"nats_per_token": 1.5, "bits_per_byte": 2.25, "bytes": 10, "stride": 8}
    train = {"steps": 1000, "tokens": 8000, "seconds": 12.5, "tokens_per_second": 640}
    make_run(tmp_path / "a", val=scores, test=scores, train=train, parameters={"total": 7})
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["status"], card["model"], card["share"]) == ("finished", "gpt", 1.0)
    assert (card["val"], card["test"], card["parameters"]) == (2.25, 2.25, 7)
    assert (card["step"], card["seconds"], card["tokens_per_second"]) == (1000, 12.5, 640)
    assert (card["can_stop"], card["can_resume"]) == (False, False)


def test_the_list_says_what_a_certificate_says(finished_run: Path, tmp_path: Path) -> None:
    own = certificate.read(finished_run)
    assert own is not None
    for name in ("sampled", "complete", "failed", "none", "forged"):
        shutil.copytree(finished_run, tmp_path / name)
    own.model_copy(update={"complete": True}).write(tmp_path / "complete")
    wrong = [Check(name="sequential", result="failed", words="looks ahead")]
    own.model_copy(update={"checks": wrong}).write(tmp_path / "failed")
    (tmp_path / "none" / certificate.FILE).unlink()
    path = tmp_path / "forged" / certificate.FILE
    path.write_text(path.read_text().replace('"complete": false', '"complete": true'))
    make_run(tmp_path / "running", [row(0)], status="running")
    with serving(tmp_path) as client:
        found = {name: card["certificate"] for name, card in client.runs().items()}
    assert found.pop("none").startswith("not certified: no certificate; python -m harness.verify ")
    assert found == {
        "sampled": "certified, a sample scored again",
        "complete": "certified, every token scored again",
        "failed": "not certified: failed sequential: looks ahead",
        "forged": "not certified: its certificate was not made here",
        "running": None,
    }


def test_a_run_that_trains_is_read_from_its_last_row(tmp_path: Path) -> None:
    rows = [row(k, **{"train/loss": 4.0 - k / 1000}) for k in range(251)]
    make_run(tmp_path / "a", rows, status="running", train={"steps": 0, "seconds": 0})
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["step"], card["share"], card["loss"]) == (250, 0.25, 3.75)
    assert (card["seconds"], card["tokens_per_second"]) == (250 / 64, 8 * 64)


def test_a_row_that_no_run_writes_spoils_no_list(tmp_path: Path) -> None:
    odd = {"tokens": "<b>", "seconds": [1], "train/loss": None, "flops": 10**400}
    make_run(tmp_path / "a", [row(0) | odd], status="running")
    make_run(tmp_path / "b")
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["step"], card["seconds"], card["loss"]) == (0, None, None)


def test_a_run_that_died_or_fell_silent_is_not_said_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dead", "elsewhere"):
        make_run(tmp_path / name, [row(0)], status="running")
    ours = {"pid": 2**30, "began": "1", "system": watch.process._system()}
    (tmp_path / "dead" / "process.json").write_text(json.dumps(ours))
    with serving(tmp_path) as client:
        cards = client.runs()
        assert cards["elsewhere"]["status"] == "running"
        os.utime(tmp_path / "elsewhere" / "metrics.jsonl", (1, 1))
        assert client.runs()["elsewhere"]["status"] == "silent"
    if Path("/proc").exists():
        assert (cards["dead"]["status"], cards["dead"]["can_resume"]) == ("lost", True)
    assert not any(card["can_stop"] for card in cards.values())


def test_runs_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESCAN_SECONDS", 0.0)
    monkeypatch.setattr(watch, "WALK_REST", 0)
    make_run(tmp_path / "a")
    with serving(tmp_path, tmp_path / "not there yet") as client:
        assert set(client.runs()) == {"a"}
        make_run(tmp_path / "not there yet" / "b", model="mlp")
        (tmp_path / "a" / "summary.json").write_text("{")
        cards = client.runs()
        assert set(cards) == {"a", "b"}
        assert cards["a"]["status"] == "damaged"
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        assert set(client.runs()) == {"b"}


def test_a_runs_own_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [row(0, loss=1.0, act={"counts": [1], "edges": [0, 1]})])
    (folder / "samples.txt").write_text(
        "the end of one\n=== step 3 ===\nTo be\nor\n\n=== step 9 ===\n<b>\n\n"
    )
    (folder / "train.log").write_text("first loss 4.2\n")
    with serving(tmp_path) as client:
        run = client.runs()["a"]["id"]
        page = client.get("run", run=run)
        histograms = client.get("histograms", run=run, name=["act", "nope"])
    assert page["config"] == {"model": {"n_layer": 2}, "train": {"steps": 1000}}
    assert page["samples"] == [{"step": 3, "text": "To be\nor"}, {"step": 9, "text": "<b>"}]
    assert (page["names"], page["snapshot_names"]) == (["loss"], ["act"])
    assert page["log"] == "first loss 4.2\n"
    assert histograms == {"act": [{"step": 0, "counts": [1], "edges": [0, 1]}], "nope": []}


# Each line ten times the one before.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        "", "- a", "x: !!python/object:os.system {}", "{", "a: 2020-01-01", "? [1]\n: 2", "é: ∑",
        "a: 2020-99-99", BOMB,
    ],
)  # fmt: skip
def test_any_configuration_can_be_shown(text: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "config.yaml").write_text(text)
    with serving(tmp_path) as client:
        client.get("run", run=client.runs()["a"]["id"])


def test_an_unchanged_answer_is_not_sent_again(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    with serving(tmp_path) as client:
        _, headers, body = client.ask("GET", "/api/runs")
        assert body
        again = client.ask("GET", "/api/runs", If_None_Match=headers["ETag"])
        assert (again[0], again[2]) == (304, b"")
        make_run(tmp_path / "a", seed=5)
        assert client.ask("GET", "/api/runs", If_None_Match=headers["ETag"])[0] == 200
