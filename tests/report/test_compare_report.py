"""The page: self-contained, safe, and leading from each number to where it comes from."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.report.drawing.svg import PLACEHOLDERS
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.runs.metrics import Metrics
from tests.report.comparing import Page, page, printed, write_run
from tests.waiting import GUARD


def test_the_page_is_self_contained_and_without_doubled_ids(sweep: Path, tmp_path: Path) -> None:
    text = page(sweep, tmp_path / "report.html")
    parsed = Page(text)
    assert parsed.scripts == 1
    assert all(link.startswith("#") for link in parsed.links)
    assert "http" not in text
    assert "@import" not in text
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
    write_report(compare_runs(records[::-1]), tmp_path / "reversed.html", [sweep])
    write_report(compare_runs(records), tmp_path / "sorted.html", [sweep])
    texts = [(tmp_path / f"{name}.html").read_text() for name in ("reversed", "sorted")]
    assert texts[0].replace("reversed.html", "sorted.html") == texts[1]


def part(text: str, name: str) -> str:
    """What lies under an anchor of the page, up to the end of its section."""
    return text.split(f'<div id="{name}">')[1].split("</section>")[0]


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three models, two seeds each, tested in pairs; and of a run that failed."""
    folder = tmp_path_factory.mktemp("paired")
    for seed in (0, 1):
        for model, test in (("mlp", 2.5), ("gpt", 2.0), ("rnn", 3.25)):
            shape = np.random.default_rng(seed).uniform(0.5, 1.5, 40).tolist()
            write_run(
                folder / "runs" / f"{model}-{seed}", model, seed, test=test + seed / 100,
                blocks=shape, test_bytes=40 * 256, config={"width": {"mlp": 9}.get(model, 10)},
            )  # fmt: skip
    write_run(folder / "runs" / "bad", "gpt", 2, test=None, status="failed", error="it broke")
    page(folder / "runs", folder / "report.html")
    return folder / "report.html"


def test_every_number_leads_to_its_runs_configuration(paired: Path) -> None:
    text = paired.read_text()
    numbers = Page(part(text, "ranking"))
    assert numbers.unlinked == ["1", "2", "3"]  # the places
    assert len(numbers.links) == 3 * 11
    assert Page(part(text, "differences")).unlinked == []
    (why,) = Page(part(text, "runs")).unlinked or ["none"]
    assert why == "none"
    for row in part(text, "ranking").split("<tr>")[2:]:
        model = re.search(r"#config-\d+\">(\w+)</a>", row)
        assert model is not None
        (number,) = set(re.findall(r"#config-(\d+)", row))
        configuration = part(text, f"config-{number}").split("</details>")[0]
        assert f"<mark>model.name: {model[1]}</mark>" in configuration
        assert f"<mark>width: {9 if model[1] == 'mlp' else 10}</mark>" in configuration
        for seed in (0, 1):
            assert f"seed {seed}: <code>{model[1]}-{seed}</code>" in configuration
    # Drawn numbers, too: the ends of curves and the points of the scatter plots.
    for name in ("curves", "cost", "losses", "samples"):
        assert {f"#config-{number}" for number in range(3)} <= set(Page(part(text, name)).links)


def test_the_page_says_what_the_pairs_show(paired: Path) -> None:
    words = Page(part(paired.read_text(), "differences")).words
    assert "gpt is 0.500 bits per byte better than mlp (95% interval" in words
    assert "mlp is 0.750 bits per byte better than rnn" in words
    assert words.count("yes") == 3
    assert "Holm's correction for all 3 pairs" in words
    assert "With one seed" not in words


def test_the_front_is_drawn_and_named_for_every_cost(paired: Path) -> None:
    costs = part(paired.read_text(), "cost")
    for name in ("parameters", "FLOPs", "seconds", "memory"):
        for kind in ("wide", "narrow"):
            assert f'id="test-{name}-{kind}-front"' in costs
    # All cost the same here: the best alone is on it.
    assert costs.count("<figcaption>On the front: gpt</figcaption>") == 4


def test_the_tables_for_a_paper_are_the_ones_shown(paired: Path) -> None:
    words = Page(part(paired.read_text(), "paper")).words
    assert "| gpt | 2 | 2.005 ± 0.007 |" in words
    assert "1,gpt" in words


def test_five_models_with_five_long_seeds_stay_under_2_megabytes(
    sweep: Path, tmp_path: Path
) -> None:
    """100,000 steps, evaluated every 100."""
    (like, *_) = find_runs([sweep / "gpt-0"])
    steps = np.arange(100_000.0)
    generator = np.random.default_rng(0)
    records = [
        replace(
            like, folder=Path(f"{model}-{seed}"), model=model, seed=seed,
            config={f"setting.{n}": str(n) for n in range(80)} | {"model": model},
            metrics=Metrics(
                [
                    {"step": step, "tokens": step, "flops": step, "seconds": step / 7}
                    | {"val/bits_per_byte": 2 + generator.random()}
                    for step in steps[::100]
                ],
                np.stack([steps, generator.random(len(steps))], axis=1),
            ),
        )
        for model in ("bigram", "mlp", "wavenet", "gpt", "megabyte")
        for seed in range(5)
    ]  # fmt: skip
    write_report(compare_runs(records), tmp_path / "report.html", [sweep])
    size = (tmp_path / "report.html").stat().st_size
    assert 200_000 < size < 2_000_000


@pytest.mark.long
def test_long_runs_are_read_in_little_memory(sweep: Path) -> None:
    """A run of 100,000 steps takes a few megabytes, not the hundreds of its rows."""
    import tracemalloc

    path = sweep / "gpt-0" / "metrics.jsonl"
    row = '{"step": %d, "tokens": 1, "flops": 1, "seconds": 1, "train/loss": 1.5, "lr": 0.1}\n'
    path.write_text("".join(row % step for step in range(100_000)))
    tracemalloc.start()
    (run,) = find_runs([sweep / "gpt-0"])
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert run.metrics.losses.shape == (100_000, 2)
    assert kept < 5_000_000


def in_a_browser(page: Path, script: str, *options: str) -> str:
    """The page's HTML after it ran, and then the script."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium, which is not installed")
    copy = page.with_name("clicked.html")
    copy.write_text(page.read_text() + f"<script>{script}</script>")
    ended = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options,
            f"--user-data-dir={page.parent / 'profile'}", copy.as_uri(),
        ],
        capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_tables_sort_and_links_unfold_in_a_browser(paired: Path) -> None:
    """By numbers as numbers, by names as names, the other way round on a second click."""
    script = """
    const order = (table, column, clicks) => {
      const head = document.querySelectorAll(`#${table} th`)[column];
      for (let n = 0; n < clicks; n++) head.querySelector("button").click();
      const rows = [...document.querySelectorAll(`#${table} tbody tr`)];
      return [head.ariaSort, ...rows.map((row) => row.cells[column].textContent)].join("|");
    };
    const said = [order("ranking", 3, 2), order("ranking", 1, 1), order("runs", 5, 1)];
    addEventListener("hashchange", () => {
      said.push(document.querySelector("details[open] summary").textContent);
      document.body.textContent = said.join(";");
    });
    document.querySelectorAll("#ranking td a")[12].click();
    """
    dumped = in_a_browser(paired, script, "--virtual-time-budget=5000")
    body = dumped.split("<body>")[1]
    assert "descending|3.255 ± 0.007|2.505 ± 0.007|2.005 ± 0.007;" in body
    assert "ascending|gpt|mlp|rnn;" in body
    # The run without a score comes last, whichever way.
    assert "ascending|2.000 bits/byte|2.010 bits/byte|2.500 bits/byte" in body
    assert "|2.510 bits/byte|3.250 bits/byte|3.260 bits/byte|;" in body
    assert ";mlp</body>" in body
