"""The page: self-contained, safe, and leading from each number to where it comes from."""

from __future__ import annotations

from pathlib import Path

from harness.report import write_report
from harness.runs import find_runs
from harness.svg import PLACEHOLDERS

from .comparing import Page, page, printed, write_run


def test_the_page_is_self_contained_small_and_without_doubled_ids(
    sweep: Path, tmp_path: Path
) -> None:
    text = page(sweep, tmp_path / "report.html")
    parsed = Page(text)
    assert parsed.scripts == 1
    assert all(link.startswith("#") for link in parsed.links)
    assert "http" not in text
    assert "@import" not in text
    assert len(text.encode()) < 1_000_000
    assert len(parsed.ids) == len(set(parsed.ids))
    used = {link.removeprefix("#") for link in parsed.links} | set(parsed.used)
    assert used <= set(parsed.ids)
    assert used
    for colour in (PLACEHOLDERS.ink, PLACEHOLDERS.muted, PLACEHOLDERS.grid, *PLACEHOLDERS.series):
        assert colour not in text


def test_everything_that_came_from_a_run_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    for name, steps in (("a", 100), ("b", 200)):
        write_run(
            tmp_path / "runs" / f"<b>{name}", f"gpt{evil}", steps=steps, sample=f"x{evil}\x1b[2J",
            tokenizer=f"char{evil}", data=f"data{evil}", git={"commit": evil},
            machine={"cpu": evil}, versions={"torch": evil}, config={f"key{evil}": f"{evil}{name}"},
        )  # fmt: skip
    write_run(tmp_path / "runs" / "c", evil, status="failed", error=f"\x1b[31m{evil}")
    text = page(tmp_path / "runs", tmp_path / "report.html")
    parsed = Page(text)
    assert parsed.scripts == 1
    assert "<b>" not in text
    assert f"gpt{evil}" in parsed.words
    assert f"x{evil}" in parsed.words
    assert "\x1b" not in text
    assert "\x1b" not in printed(tmp_path / "runs")


def test_the_page_shows_every_run_sample_and_difference(sweep: Path, tmp_path: Path) -> None:
    words = Page(page(sweep, tmp_path / "report.html")).words
    for folder in sweep.iterdir():
        assert folder.name in words
    assert "To be" in words
    assert "qzx" not in words
    assert "model.name" in words
    assert "run_dir" not in words
    assert f"python -m harness.compare {sweep} --out" in words


def test_a_cost_of_zero_is_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "table", "table", flops_per_token=0)
    assert "table (no cost)" in page(tmp_path / "runs", tmp_path / "alone.html")
    write_run(tmp_path / "runs" / "gpt", "gpt")
    assert "table (no cost)" in page(tmp_path / "runs", tmp_path / "both.html")


def test_the_same_runs_give_the_same_bytes(sweep: Path, tmp_path: Path) -> None:
    records = find_runs([sweep])
    write_report(list(reversed(records)), tmp_path / "reversed.html", [sweep])
    write_report(records, tmp_path / "sorted.html", [sweep])
    texts = [(tmp_path / f"{name}.html").read_text() for name in ("reversed", "sorted")]
    assert texts[0].replace("reversed.html", "sorted.html") == texts[1]
