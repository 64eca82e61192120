"""The tables and the figure of this study, from its runs.

python experiments/2026-11-20-normalization/figure.py     (reads runs.csv beside it)
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

HERE = Path(__file__).parent
VARIANTS = {
    "none": "none", "layer_norm": "layer norm", "rms_norm": "RMS norm",
    "bn-moving": "batch, moving", "bn-precise": "batch, precise", "bn-frozen": "batch, frozen",
    "bn-batch": "batch at hand (not causal)",
}  # fmt: skip
MODELS = {"mlp": "MLP", "wavenet": "WaveNet"}
SIZES = {"768": "768 positions a batch", "16": "16 positions a batch"}
INK, MUTED, BLUE, GREY = "#1a1a1a", "#6b6b6b", "#0b62a4", "#b0b0b0"


class Runs(NamedTuple):
    """All seeds of one configuration; bits per byte."""

    val: list[float]
    test: list[float]


Key = tuple[str, str, str]  # positions, model, variant


def read() -> dict[Key, dict[str, Runs]]:
    """By configuration, then by learning rate."""
    found: dict[Key, dict[str, Runs]] = {}
    with (HERE / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            rates = found.setdefault((row["positions"], row["model"], row["variant"]), {})
            runs = rates.setdefault(row["lr"], Runs([], []))
            runs.val.append(float(row["val bits_per_byte"]))
            runs.test.append(float(row["test bits_per_byte"]))
    return found


def best(rates: dict[str, Runs]) -> Runs:
    """Those of the rate whose mean validation score is the lowest."""
    return min(rates.values(), key=lambda runs: statistics.mean(runs.val))


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def table(found: dict[Key, dict[str, Runs]], positions: str) -> str:
    lines = ["| | " + " | ".join(f"{name} test | {name} val" for name in MODELS.values()) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(MODELS)))
    for variant, name in VARIANTS.items():
        if (positions, "mlp", variant) in found:
            chosen = [best(found[positions, model, variant]) for model in MODELS]
            cells = [spread(values) for runs in chosen for values in (runs.test, runs.val)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rates(found: dict[Key, dict[str, Runs]], positions: str) -> str:
    """Validation at each rate."""
    columns = [(m, rate) for m in MODELS for rate in found[positions, m, "bn-moving"]]
    lines = ["| | " + " | ".join(f"{MODELS[m]} {float(rate):g}" for m, rate in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for variant, name in VARIANTS.items():
        if len(found.get((positions, "mlp", variant), {})) > 1:
            means = [statistics.mean(found[positions, m, variant][rate].val) for m, rate in columns]
            lines.append(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def draw(found: dict[Key, dict[str, Runs]]) -> None:
    pyplot.rcParams |= {"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}
    names = {
        positions: [name for name in VARIANTS if (positions, "mlp", name) in found]
        for positions in SIZES
    }
    heights = [len(each) for each in names.values()]
    figure, panels = pyplot.subplots(
        2, 2, figsize=(9, 6), sharey="row", gridspec_kw={"height_ratios": heights}
    )
    for row, (positions, size) in zip(panels, SIZES.items(), strict=True):
        for panel, (model, title) in zip(row, MODELS.items(), strict=True):
            first = best(found[positions, model, names[positions][0]])
            panel.axvline(statistics.mean(first.test), color=GREY, linewidth=1, zorder=0)
            for place, variant in enumerate(names[positions]):
                values = best(found[positions, model, variant]).test
                colour = MUTED if variant == "bn-batch" else BLUE
                panel.plot(
                    values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.55
                )
                panel.plot([statistics.mean(values)], [place], "|", color=INK, markersize=14)
            panel.set_title(f"{title}, {size}", loc="left", fontsize=11, color=INK)
            panel.set_yticks(
                range(len(names[positions])), [VARIANTS[name] for name in names[positions]]
            )
            panel.set_ylim(len(names[positions]) - 0.5, -0.5)
            panel.tick_params(colors=MUTED, length=0)
            panel.grid(axis="x", color="#ececec")
            panel.set_axisbelow(True)
            for side in ("top", "right", "left", "bottom"):
                panel.spines[side].set_visible(False)
        for label in row[0].get_yticklabels():
            label.set_color(INK)
    for panel in panels[1]:
        panel.set_xlabel("test bits per byte, lower is better", color=MUTED)
    figure.tight_layout(h_pad=1.5)
    figure.savefig(HERE / "normalization.png", dpi=144)


if __name__ == "__main__":
    runs = read()
    for positions in SIZES:
        print(table(runs, positions), rates(runs, positions), sep="\n\n", end="\n\n")
    draw(runs)
