"""A hostile name in every field of every file of a run's folder is no more than text in any output:
terminal, page, figure, table, list or log."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml

from harness.common.rows import Row
from harness.common.text import csv_cell, markdown, visible, visible_line
from harness.diagnostics.faults.hostile import find, sign
from harness.loggers import follow
from harness.loggers.base import Logger
from tests.live.live_server import serving
from tests.report.comparing import write_run
from tests.runs.tampering import Command

NAME = "=1+1|<b>x</b>$x^$`a`[u](http://x)\x1b[2J\x07\x85\u202e\n# h\r\t@"


def everywhere(value: Any) -> Any:
    """The name in place of every text, and in every key."""
    if isinstance(value, dict):
        return {key: everywhere(inner) for key, inner in value.items()} | {NAME: NAME}
    if isinstance(value, list):
        return [everywhere(inner) for inner in value]
    return NAME if isinstance(value, str) else value


def hostile_run(folder: Path, seed: int, **more: Any) -> None:
    write_run(
        folder, NAME, seed, config={"model": {"name": NAME, "n": seed % 2}}, sample=NAME,
        blocks=[1, 2, 3, 4], lost={"characters": 9, "changed": 3, "examples": [[NAME, NAME]]},
        **more,
    )  # fmt: skip
    saved = everywhere(json.loads((folder / "summary.json").read_text()))
    (folder / "summary.json").write_text(json.dumps(saved | {"status": "finished"} | more))
    config = everywhere(yaml.safe_load((folder / "config.yaml").read_text()))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    more_names = {f"updates/{NAME}/log10_ratio": -3.0, f"x/{NAME}": 1}
    rows = [everywhere(json.loads(line)) | more_names for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "train.log").write_text(NAME)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two configurations, some in folders of hostile names; and those that don't count."""
    folder = tmp_path_factory.mktemp("hostile")
    for seed in range(4):
        hostile_run(folder / f"{NAME.replace('/', '')}{seed}", seed)
    hostile_run(folder / "lossy", 0, lossless=False)
    hostile_run(folder / "failed", 9, status="failed", error=NAME)
    hostile_run(folder / "running", 9, status="running")
    hostile_run(folder / "damaged", 8)
    (folder / "damaged" / "metrics.jsonl").write_text(NAME + "\n")
    return folder


def assert_harmless(text: str) -> None:
    odd = {each for each in text if not each.isprintable() and each not in "\n\t"}
    assert not odd, (odd, text[:3000])


def test_a_comparison_in_every_format(hostile: Path, command: Command, tmp_path: Path) -> None:
    options = {name: tmp_path / name for name in ("out", "markdown", "csv", "runs-csv", "plots")}
    arguments = [each for name, path in options.items() for each in (f"--{name}", path)]
    ended = command("compare", hostile, *arguments)
    assert ended.code == 0, ended.err
    assert_harmless(ended.out + ended.err)

    page = options["out"].read_text()
    assert_harmless(page)
    assert "<b>" not in page
    assert "&lt;b&gt;" in page

    for line in options["markdown"].read_text().splitlines():
        assert_harmless(line)
        assert not re.search(r"(?<!\\)[`\[$]|<b|://|^#|@", line), line
    rows = [line for line in options["markdown"].read_text().splitlines() if line[:1] == "|"]
    assert len(rows) > 4
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]}) == 1  # one table

    for name in ("csv", "runs-csv"):
        lines = list(csv.reader(options[name].read_text().splitlines(keepends=True)))
        assert any(NAME[:3] in cell for line in lines for cell in line)
        for cell in (cell for line in lines for cell in line):
            assert_harmless(cell)
            assert not cell[:1] or cell[0] not in "=+-@\t\r" or float(cell) < 0

    figures = list(options["plots"].glob("*.svg"))
    assert figures
    for figure in figures:
        assert_harmless(figure.read_text())
        words = " ".join(ElementTree.fromstring(figure.read_text()).itertext())
        assert "=1+1|<b>x" in words or "legend" not in figure.read_text()


def test_the_live_page(hostile: Path) -> None:
    with serving(hostile) as client:
        for _ in range(100):  # each answer looks at a part of what is there
            cards = client.get("runs")["runs"]
            if len(cards) == len(list(hostile.iterdir())):
                break
        assert {card["status"] for card in cards} >= {"finished", "failed", "running"}
        for card in cards:
            for path in (f"run?run={card['id']}", "runs", "setup"):
                status, _, body = client.ask("GET", f"/api/{path}")
                assert status == 200
                assert body.isascii()
                assert_harmless(body.decode())


def test_the_internals(hostile: Path, command: Command, tmp_path: Path) -> None:
    runs = sorted(hostile.glob("=*"))[:2]
    ended = command("inside", *runs, "--out", tmp_path / "i.svg")
    assert ended.code == 0, ended.err
    assert_harmless(ended.out + ended.err)
    assert "<b>" not in (tmp_path / "i.svg").read_text()


def leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


def put(node: Any, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value


def try_all(command: Command, run: Path) -> None:
    for tool, *arguments in (
        ("evaluate", run),
        ("sample", run, "--tokens", "1"),
        ("train", f"run_dir={run}", "resume=true", "train.steps=31"),
    ):
        ended = command(str(tool), *arguments)
        assert_harmless(ended.err)
        assert tool == "sample" or not ended.out or assert_harmless(ended.out) is None
        assert "Traceback" not in ended.err
        if ended.code:
            assert len(ended.err.splitlines()) <= 2, ended.err
    log = (run / "train.log").read_text() if (run / "train.log").exists() else ""
    assert_harmless(log)


def in_config(path: tuple[str, ...]) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        saved = yaml.safe_load((run / "config.yaml").read_text())
        put(saved, path, NAME)
        (run / "config.yaml").write_text(yaml.safe_dump(saved))

    return change


def in_checkpoints(path: tuple[str, ...]) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for kind in ("best", "step"):
            file = find(run, f"checkpoints/{kind}")
            state = torch.load(file, weights_only=True)
            put(state, path, NAME)
            torch.save(state, file)
            sign(file)

    return change


def every_field(run: Path) -> dict[str, Callable[[Path], None]]:
    """Each field of the configuration and of the checkpoints, and a key beside each group's."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    state = torch.load(find(run, "checkpoints/step"), weights_only=True)
    kept = {name: state[name] for name in ("step", "tokenizer", "corpus", "settings", "format")}
    found = {}
    for place, change, tree in (
        ("config", in_config, config),
        ("checkpoint", in_checkpoints, kept),
    ):
        paths = list(leaves(tree))
        groups = {path[:-1] for path in paths}
        for path in (*paths, *((*group, NAME) for group in groups)):
            found[f"{place} {'.'.join(path)}"] = change(path)
    return found


def test_some_fields_of_what_commands_read(
    finished_run: Path, command: Command, tmp_path: Path
) -> None:
    fields = every_field(finished_run)
    some = ("config names.model", "config data.path", "config model.n_embd", "config eval.prompt",
            "config logger.local", f"config model.{NAME}", "checkpoint settings.model.n_embd",
            "checkpoint corpus")  # fmt: skip
    for number, name in enumerate(some):
        run = Path(shutil.copytree(finished_run, tmp_path / f"run-{number}"))
        fields[name](run)
        try_all(command, run)


@pytest.mark.long
def test_every_field_of_what_commands_read(
    finished_run: Path, command: Command, tmp_path: Path
) -> None:
    fields = every_field(finished_run)
    assert len(fields) > 100
    for change in fields.values():
        run = Path(shutil.copytree(finished_run, tmp_path / "run"))
        change(run)
        try_all(command, run)
        shutil.rmtree(run)


def test_a_name_is_one_line_of_every_target() -> None:
    assert visible_line(NAME).count("\n") == 0
    assert visible(NAME).count("\x1b") == 0
    assert markdown("# a") == "&#35; a"
    assert markdown("a_b|c") == "a\\_b\\|c"
    assert markdown("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    for begins in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n=1", "＝1"):
        assert csv_cell(begins).startswith("'")
    assert csv_cell("gpt -1") == "gpt -1"


class Noting(Logger):
    """Keeps the names of the rows that it gets."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def open(self, folder: Path, settings: Any, step: int) -> None: ...

    def log(self, row: Row) -> None:
        self.names += row

    def close(self, summary: dict[str, Any]) -> None: ...


def test_a_strangers_rows_bring_no_odd_names_to_a_logger(tmp_path: Path) -> None:
    (tmp_path / "loggers").mkdir()
    rows = ({"step": step, "train/loss": 1.0, NAME: 2} for step in range(3))
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    logger, end = Noting(), follow._End()
    end.came.set()
    follow._feed(logger, "noting", tmp_path, None, 0, end)  # type: ignore[arg-type]
    assert logger.names == ["step", "train/loss"] * 3
