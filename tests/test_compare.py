"""Comparing finished runs: what is ranked, what is kept apart, and the page that says so."""

import csv
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.compare import main, print_comparison
from harness.errors import UsageError
from harness.plots import human
from harness.ranking import compare_runs, ranking_score
from harness.report import write_report
from harness.runs import find_runs, read_run
from harness.svg import PLACEHOLDERS
from harness.verdict import by_tokenizer, headline, notes, score


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
    **summary: Any,
) -> Path:
    """A run folder as the harness leaves it; `test` is bits per byte, or nats if lossy."""
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
    (folder / "samples.txt").write_text(f"=== step 0 ===\nqzx\n=== step {steps} ===\n{sample}\n")
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three models with three seeds, and one of each thing that must stay out of the ranking."""
    folder = tmp_path / "sweep"
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
    print_comparison(find_runs([folder]), out)
    return out.getvalue()


def page(folder: Path, out: Path) -> str:
    write_report(find_runs([folder]), out)
    return out.read_text(encoding="utf-8")


def test_ranks_groups_by_mean_test_bits_per_byte(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert [group.model for group in comparison.ranked] == ["gpt", "mlp", "table"]
    spread = comparison.ranked[0].spread(ranking_score)
    assert spread is not None
    # By hand: (2.0 + 2.1 + 2.4) / 3, and the root of 0.086667 / (3 - 1).
    assert (spread.mean, spread.std, spread.n) == pytest.approx((2.166667, 0.208167, 3), abs=1e-6)
    assert score(spread) == "2.167 ± 0.208"
    ranking = printed(sweep).split("Not ranked")[0]
    places = [re.split(r"\s+", line.strip())[:3] for line in ranking.splitlines()]
    assert [place for place in places if place[0].isdigit()] == [
        ["1", "gpt", "3"], ["2", "mlp", "3"], ["3", "table", "3"],
    ]  # fmt: skip
    assert "2.167 ± 0.208" in ranking
    assert "1.53 M" in ranking


def test_one_seed_shows_no_spread(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=2.5)
    text = printed(tmp_path)
    assert "2.000" in text
    assert "±" not in text.split("Mean ±")[0]
    assert "One seed: no spread known." in text


def test_headline_says_by_how_much_and_whether_the_order_is_settled(tmp_path: Path) -> None:
    for seed, first, second in ((0, 2.0, 2.5), (1, 2.2, 2.7)):
        write_run(tmp_path / f"a{seed}", "gpt", seed, test=first)
        write_run(tmp_path / f"b{seed}", "mlp", seed, test=second)
    (line,) = headline(compare_runs(find_runs([tmp_path])))
    assert "gpt reaches 2.100 ± 0.141 test bits per byte on text (2 seeds)" in line
    assert "0.500 (19.2%) below mlp" in line
    assert "Each of its seeds is better" in line
    assert "Equal budget: 100 steps, 6,400 training tokens" in line
    write_run(tmp_path / "b2", "mlp", 2, test=2.1)
    (line,) = headline(compare_runs(find_runs([tmp_path])))
    assert "not settled" in line


def test_groups_differ_in_configuration_not_in_seed_or_place(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "gpt", seed, config={"optimizer": {"lr": 0.1}})
    write_run(tmp_path / "b", "gpt", 0, config={"optimizer": {"lr": 0.2}}, test=2.5)
    ranked = compare_runs(find_runs([tmp_path])).ranked
    assert [(len(group.counted), group.variant) for group in ranked] == [
        (2, "lr=0.1"), (1, "lr=0.2"),
    ]  # fmt: skip


def test_a_repeated_seed_is_no_second_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", 0, test=2.0)
    write_run(tmp_path / "b", "gpt", 0, test=3.0)
    comparison = compare_runs(find_runs([tmp_path]))
    assert len(comparison.ranked[0].counted) == 1
    assert "repeats seed 0 of a" in comparison.uncounted[0][1]


def test_lossy_runs_are_apart_and_unranked(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert [group.tokenizer for group in comparison.lossy] == ["bert"]
    ranking, rest = printed(sweep).split("Not ranked")
    assert "bert" not in ranking
    assert "no bits per byte: the tokenizer is lossy" in rest
    assert "nats/token" in rest
    assert re.search(r"gpt +bert +1 +1\.100", rest)


def test_what_did_not_finish_is_listed_with_its_reason_and_never_ranked(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert {run.folder.name for group in comparison.groups for run in group.counted}.isdisjoint(
        {"failed", "nan", "stopped", "running", "damaged"}
    )
    listed = printed(sweep).split("Not counted")[1]
    for name, status, reason in (
        ("failed", "failed", "boom <script>alert(1)</script> second line"),
        ("nan", "non_finite", "no error recorded, at step 100"),
        ("stopped", "stopped", "stopped before its end, at step 100"),
        ("running", "running", "still running, or killed, at step 50"),
        ("damaged", "damaged", "summary.json is not strict JSON"),
    ):
        assert re.search(rf"^ ?{name} +{status} +{re.escape(reason)} *$", listed, re.MULTILINE)
    # gpt's failed, non-finite and stopped seeds share its configuration; the rest is unreadable.
    assert "gpt · char: 3 of 6 seeds have a score; the mean is over those alone." in notes(
        comparison
    )


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("summary.json", "[1]", "summary.json is not a JSON object"),
        ("summary.json", '{"status": "done"}', "no known status"),
        ("summary.json", '{"status": "finished", "train": 3}', "train is not an object"),
        ("summary.json", '{"status": "finished", "test": {"bits_per_byte": NaN}}', "strict JSON"),
        ("summary.json", '{"status": "finished", "flops_per_token": "1"}', "flops_per_token"),
        ("metrics.jsonl", '{"step": 0}\n{"st\n{"step": 2}\n', "metrics.jsonl line 2"),
        ("metrics.jsonl", '{"loss": 0}\n', "metrics.jsonl line 1 has no step"),
        ("config.yaml", "a: [", "config.yaml is not plain YAML"),
        ("config.yaml", None, "config.yaml is missing"),
        ("summary.json", None, "summary.json is missing"),
    ],
)
def test_damage_is_named_and_not_ranked(
    tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    comparison = compare_runs(find_runs([tmp_path]))
    assert comparison.groups == ()
    ((run, why),) = comparison.uncounted
    assert run.status == "damaged"
    assert reason in why
    assert reason.split()[0] in page(tmp_path, tmp_path / "report.html")


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    run = read_run(folder)
    assert (run.status, [row["step"] for row in run.rows]) == ("finished", [0, 50])


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"steps": 200}, "steps (100 to 200); training tokens"),
        ({"text_bytes": 6500}, "bytes of text (6,400 to 6,500)"),
        ({"test_bytes": 990}, "test split (990 to 1.00 k bytes scored)"),
        ({"stride": 64}, "evaluation stride (32, 64)"),
        ({"data": "other"}, "data sets (text, other), ranked apart"),
    ],
)
def test_an_unequal_comparison_says_so(tmp_path: Path, change: dict[str, Any], note: str) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=2.5)
    assert notes(compare_runs(find_runs([tmp_path]))) == []
    write_run(tmp_path / "c", "table", test=2.7, **change)
    (line,) = [line for line in printed(tmp_path).splitlines() if line.startswith("!")]
    assert line.startswith("! Not an equal comparison. These differ: ")
    assert note in line
    assert note in page(tmp_path, tmp_path / "report.html")


def test_what_varies_by_nature_is_no_inequality(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    # A streaming pass has no stride, and batches of another tokenizer hold a few bytes more.
    write_run(tmp_path / "b", "rnn", stride=None, text_bytes=6440, flops_per_token=7)
    assert notes(compare_runs(find_runs([tmp_path]))) == []


def test_other_code_and_other_machines_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(
        tmp_path / "b", "mlp", git={"commit": "def", "dirty": False}, machine={"device": "cuda"}
    )
    code, machine = notes(compare_runs(find_runs([tmp_path])))
    assert "different versions of the code" in code
    assert "different machines" in machine


def test_other_data_has_a_ranking_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=1.0, data="other")
    first, second = headline(compare_runs(find_runs([tmp_path])))
    assert first.startswith("mlp · other reaches 1.000")
    assert second.startswith("gpt · text reaches 2.000")


class Page(HTMLParser):
    """Collects what a browser would run, fetch or confuse."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts = 0
        self.links: list[str] = []
        self.ids: list[str] = []
        self.used: list[str] = re.findall(r"url\(#([^)]+)\)", text)
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag}> has an inline handler"
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "data", "action"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words += data


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
    out = tmp_path / "report.html"
    assert page(sweep, out) == page(sweep, out)
    records = find_runs([sweep])
    write_report(list(reversed(records)), tmp_path / "reversed.html", [sweep])
    write_report(records, tmp_path / "sorted.html", [sweep])
    texts = [(tmp_path / f"{name}.html").read_text() for name in ("reversed", "sorted")]
    assert texts[0].replace("reversed.html", "sorted.html") == texts[1]


def test_plots_are_written(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(sweep), "--plots", str(tmp_path / "plots")]) == 0
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"validation-over-flops.svg", "test-against-parameters.png"} <= names
    assert len(names) == 14
    # A date or a random id would change the file with every call.
    assert "date>" not in (tmp_path / "plots" / "validation-over-flops.svg").read_text()
    assert "14 files written" in capsys.readouterr().out


def test_output_that_is_not_a_terminal_is_plain_and_whole(sweep: Path) -> None:
    text = printed(sweep)
    assert "\x1b" not in text
    assert "…" not in text
    assert "peak memory" in text
    assert headline(compare_runs(find_runs([sweep])))[0] in text.splitlines()


def test_a_path_without_runs_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    with pytest.raises(UsageError, match=r"nothing: no such folder"):
        find_runs([empty])
    empty.mkdir()
    with pytest.raises(UsageError, match=r"nothing: no run here"):
        find_runs([empty])


def test_runs_are_found_once_at_any_depth(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "b" / "run", "gpt")
    around = tmp_path / "a" / ".." / "a"
    assert [record.folder for record in find_runs([run, around])] == [run]


def test_a_wrong_path_ends_in_one_line_and_code_2_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None\n"
        "from harness.cli import run_tool; from harness.compare import main\n"
        f"run_tool(lambda: main([{str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no run here")
    assert len(done.stderr.splitlines()) == 1


def test_a_report_that_can_not_be_written_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = write_run(tmp_path / "run", "gpt")
    with pytest.raises(UsageError, match="can't be written"):
        main([str(run), "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (65, "65"), (999.6, "1.00 k"), (1530000, "1.53 M"), (892315, "892 k"),
     (4.1e9, "4.10 G"), (999_600, "1.00 M"), (0.5, "0.5")],
)  # fmt: skip
def test_numbers_are_written_with_three_digits(number: float, text: str) -> None:
    assert human(number) == text


def test_leaking_and_non_causal_runs_are_not_ranked(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=1.0, leaks=True)
    write_run(tmp_path / "c", "wavenet", test=0.5, causal=False)
    comparison = compare_runs(find_runs([tmp_path]))
    assert [group.model for group in comparison.ranked] == ["gpt"]
    assert [reason.split(":")[0] for _, reason in comparison.uncounted] == ["leaks", "not causal"]


def test_the_best_with_each_tokenizer_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    assert by_tokenizer(compare_runs(find_runs([tmp_path]))) is None
    write_run(tmp_path / "b", "mlp", test=1.5)
    write_run(tmp_path / "c", "gpt", test=2.5, tokenizer="p50k")
    found = by_tokenizer(compare_runs(find_runs([tmp_path])))
    assert found is not None
    assert "char: mlp, 1.500; p50k: gpt, 2.500" in found


def test_what_a_lossy_tokenizer_loses_is_said(tmp_path: Path) -> None:
    lost = {"characters": 200, "changed": 25, "examples": [["To Be,\n", "to be, "]]}
    write_run(tmp_path / "a", "gpt", test=1.1, lossless=False, tokenizer="bert", lost=lost)
    out = io.StringIO()
    print_comparison(find_runs([tmp_path]), out)
    assert "bert changes 12.5% of the characters: 'To Be,' comes back as 'to be,'" in out.getvalue()


def test_markdown_and_csv_hold_the_same_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "r" / "a", "gpt", 0, test=2.0)
    write_run(tmp_path / "r" / "b", "gpt", 1, test=2.2)
    write_run(tmp_path / "r" / "c", "mlp", 0, test=None, status="failed", error="no, really")
    arguments = [str(tmp_path / "r"), "--markdown", str(tmp_path / "t.md")]
    assert main([*arguments, "--csv", str(tmp_path / "t.csv")]) == 0
    table = [line for line in (tmp_path / "t.md").read_text().splitlines() if line[:1] == "|"]
    assert len({line.count("|") for line in table}) == 1
    assert "2.100 ± 0.141" in table[2]
    lines = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [line["test bits_per_byte"] for line in lines] == ["2.0", "2.2", ""]
    assert lines[2]["not counted because"] == "no, really"


def test_different_texts_under_one_name_are_ranked_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0, corpus={"sha256": "aaaaaaaa"})
    write_run(tmp_path / "b", "mlp", test=1.0, corpus={"sha256": "bbbbbbbb"})
    comparison = compare_runs(find_runs([tmp_path]))
    assert [group.data for group in comparison.ranked] == ["text·aaaaaa", "text·bbbbbb"]
    assert any("data sets" in note for note in notes(comparison))


def test_an_equal_budget_in_flops_is_an_equal_comparison(tmp_path: Path) -> None:
    budget = {"train": {"flops": 1e12, "steps": None}}
    write_run(tmp_path / "a", "gpt", test=2.0, steps=100, config=budget)
    write_run(tmp_path / "b", "mlp", test=1.0, steps=300, config=budget)
    assert notes(compare_runs(find_runs([tmp_path]))) == []
    other = {"train": {"flops": 2e12, "steps": None}}
    write_run(tmp_path / "c", "rnn", test=1.0, steps=300, config=other)
    assert "budgets (flops=" in notes(compare_runs(find_runs([tmp_path])))[0]


def test_what_is_only_watched_does_not_split_a_group(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", 0, test=2.0, config={"checkpoint": {"every": 500}})
    write_run(tmp_path / "b", "gpt", 1, test=1.0, config={"checkpoint": {"every": 100}})
    assert len(compare_runs(find_runs([tmp_path])).ranked) == 1
