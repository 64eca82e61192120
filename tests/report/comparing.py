"""Run folders as the harness leaves them, made by hand, and what a comparison makes of them."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.terminal import print_comparison
from harness.runs.certificate import Binding, Certificate, Check
from harness.runs.summary import Scored


def write_run(
    folder: Path,
    model: str,
    seed: int = 0,
    *,
    test: float | None = 2.0,
    lossless: bool = True,
    config: dict[str, Any] | None = None,
    steps: int = 100,
    flops_per_token: float = 1000.0,
    stride: int | None = 32,
    text_bytes: int = 6400,
    test_bytes: int = 1000,
    sample: str = "To be",
    blocks: Sequence[float] | None = None,
    certified: str = "passed",
    **summary: Any,
) -> Path:
    """A run folder as the harness leaves it; `test` is bits per byte, or nats if lossy.

    blocks: what the blocks of the test text cost relative to each other; they are scaled to `test`.
    certified: the result of its certificate's one check; "": it has none.
    """
    folder.mkdir(parents=True)
    tokens = steps * 64
    nats = test if not lossless or test is None else test * 0.6931
    rows = []
    for step in (0, steps // 2, steps):
        value = {0: 6.0, steps // 2: 3.0, steps: 2.0 if test is None else test}[step]
        rows.append(
            {
                "step": step, "tokens": step * 64, "bytes": step * 64,
                "flops": step * 64 * flops_per_token, "seconds": step / 10,
                "val/nats_per_token": value, "val/bits_per_byte": value if lossless else None,
            } | ({"train/loss": value} if step < steps else {})
        )  # fmt: skip
    scores = {
        "nats_per_token": nats, "bits_per_byte": test if lossless else None,
        "bytes": test_bytes, "tokens": 1000, "stride": stride,
    }  # fmt: skip
    document = {
        "status": "finished", "model": model, "tokenizer": "char", "data": "text", "seed": seed,
        "lossless": lossless, "parameters": {"total": 1_530_000},
        "flops_per_token": flops_per_token,
        "train": {
            "steps": steps, "tokens": tokens, "bytes": text_bytes,
            "flops": tokens * flops_per_token, "seconds": steps / 10,
            "tokens_per_second": 640, "peak_memory_bytes": 2_000_000,
        },
        "val": scores, "test": None if test is None else scores,
        "versions": {"torch": "2"}, "git": {"commit": "abc", "dirty": False},
        "machine": {"device": "cpu"},
    }  # fmt: skip
    settings = {"model": {"name": model}, "seed": seed, "run_dir": str(folder)} | (config or {})
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps(settings))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps(document | summary))
    if certified and test is not None:
        write_certificate(folder, document | summary, certified)
    if blocks is not None and test is not None:
        write_blocks(folder, blocks, test, test_bytes)
    (folder / "samples.txt").write_text(
        f"=== step 0 ===\nqzx\n\n=== step {steps} ===\n{sample}\n\n"
    )
    return folder


def write_certificate(folder: Path, summary: dict[str, Any], result: str) -> None:
    corpus = summary.get("corpus") or {}
    bound = Binding(
        definition=1, corpus=corpus.get("sha256"), split=corpus.get("split"),
        reported=Scored.of(summary["test"]),
    )  # fmt: skip
    check = Check(name="sequential", result=result, words="as fixed by hand")  # type: ignore
    made = Certificate(made_by="training", complete=False, bound_to=bound, checks=[check])
    made.write(folder)


def write_blocks(folder: Path, shape: Sequence[float], test: float, test_bytes: int) -> None:
    total = test * test_bytes * math.log(2)
    nats = [total * part / math.fsum(shape) for part in shape]
    document = {"corpus": "ab", "start": 0, "bytes": test_bytes, "block_bytes": 256, "nats": nats}
    (folder / "test_nats.json").write_text(json.dumps(document))


def write_sweep(folder: Path) -> Path:
    """Three models with three seeds, and one of each thing that must stay out of the ranking."""
    for seed, gpt, mlp in ((0, 2.0, 2.5), (1, 2.1, 2.6), (2, 2.4, 2.55)):
        write_run(folder / f"gpt-{seed}", "gpt", seed, test=gpt)
        write_run(folder / f"mlp-{seed}", "mlp", seed, test=mlp)
        write_run(folder / f"table-{seed}", "table", seed, test=3.5, flops_per_token=0)
    write_run(folder / "lossy", "gpt", test=1.1, lossless=False, tokenizer="bert")
    error = "boom <script>alert(1)</script>\nsecond line"
    write_run(folder / "failed", "gpt", 3, test=None, status="failed", error=error)
    write_run(folder / "nan", "gpt", 4, test=0.5, status="non_finite")
    write_run(folder / "stopped", "gpt", 5, test=0.5, status="stopped")
    running = write_run(folder / "running", "gpt", 6, test=0.5, status="running")
    (running / "summary.json").write_text('{"status": "running"}')
    metrics = running / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    damaged = write_run(folder / "damaged", "gpt", 7, test=0.5)
    (damaged / "summary.json").write_text('{"status": "fini')
    return folder


def printed(folder: Path) -> str:
    out = io.StringIO()
    print_comparison(compare_runs(find_runs([folder])), out)
    return out.getvalue()


def page(folder: Path, out: Path) -> str:
    write_report(compare_runs(find_runs([folder])), out, [folder])
    return out.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Collects what a browser would run, fetch or confuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.links: list[str] = []
        self.ids: list[str] = []
        self.used: list[str] = re.findall(r"url\(#([^)]+)\)", text)
        self.words = ""
        self.within: list[str] = []
        self.unlinked: list[str] = []
        """Numbers in the cells of tables that are in no link."""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("td", "a"):
            self.within.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag}> has an inline handler"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "data", "action"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "a"):
            assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.within == ["td"] and re.search(r"\d", data):
            self.unlinked.append(data)
