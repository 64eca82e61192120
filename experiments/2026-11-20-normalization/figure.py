"""The table and the figure of this study, from its runs.

python experiments/2026-11-20-normalization/figure.py     (reads runs.csv beside it)
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

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
INK, MUTED, BLUE, GREY = "#1a1a1a", "#6b6b6b", "#0b62a4", "#b0b0b0"


def scores(column: str) -> dict[tuple[str, str], list[float]]:
    """Each variant's runs, by (model, variant)."""
    found: dict[tuple[str, str], list[float]] = {}
    with (HERE / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            found.setdefault((row["model"], row["variant"]), []).append(float(row[column]))
    return found


def table(test: dict[tuple[str, str], list[float]], val: dict[tuple[str, str], list[float]]) -> str:
    lines = ["| | " + " | ".join(f"{name} test | {name} val" for name in MODELS.values()) + " |"]
    lines.append("|---|" + "---:|" * (2 * len(MODELS)))
    for variant, name in VARIANTS.items():
        cells = [
            f"{statistics.mean(each):.3f} ± {statistics.stdev(each):.3f} ({len(each)})"
            if len(each) > 1
            else f"{each[0]:.3f} (1)"
            for model in MODELS
            for each in (test[model, variant], val[model, variant])
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(test: dict[tuple[str, str], list[float]]) -> None:
    pyplot.rcParams |= {"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK}
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, (model, title) in zip(panels, MODELS.items(), strict=True):
        plain = statistics.mean(test[model, "none"])
        panel.axvline(plain, color=GREY, linewidth=1, zorder=0)
        for place, variant in enumerate(VARIANTS):
            values, colour = test[model, variant], MUTED if variant == "bn-batch" else BLUE
            panel.plot(values, [place] * len(values), "o", color=colour, markersize=5, alpha=0.55)
            panel.plot([statistics.mean(values)], [place], "|", color=INK, markersize=14)
        panel.set_title(title, loc="left", fontsize=11, color=INK)
        panel.set_yticks(range(len(VARIANTS)), list(VARIANTS.values()))
        panel.set_xlabel("test bits per byte, lower is better", color=MUTED)
        panel.tick_params(colors=MUTED, length=0)
        panel.grid(axis="x", color="#ececec")
        panel.set_axisbelow(True)
        for side in ("top", "right", "left", "bottom"):
            panel.spines[side].set_visible(False)
    panels[0].invert_yaxis()
    for label in panels[0].get_yticklabels():
        label.set_color(INK)
    figure.tight_layout()
    figure.savefig(HERE / "normalization.png", dpi=144)


if __name__ == "__main__":
    test = scores("test bits_per_byte")
    print(table(test, scores("val bits_per_byte")))
    draw(test)
