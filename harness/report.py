"""The self-contained HTML page that shows a comparison."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness import plots, svg
from harness.page import document
from harness.page import escape as _esc
from harness.page import section as _section
from harness.plots import human
from harness.ranking import Comparison, Group, compare_runs, lossy_score, ranking_score
from harness.runs import RunRecord
from harness.verdict import (
    LOSSY_NOTE,
    MEANS_NOTE,
    Column,
    by_tokenizer,
    columns,
    headline,
    losses,
    notes,
    plain,
    run_name,
    score,
)

SAMPLE_CHARACTERS = 700


def write_report(
    records: Sequence[RunRecord], path: Path, sources: Sequence[Path] | None = None
) -> None:
    """Writes the comparison of these runs as one HTML file that needs nothing else.

    `sources` are the paths to name in the command that regenerates it (default: the runs' common
    folder). Raises OSError if the file can't be written.
    """
    comparison = compare_runs(records)
    if sources is None:
        parents = {run.folder.parent for run in records}
        sources = list(parents) if len(parents) == 1 else [run.folder for run in records]
    command = shlex.join(
        ["python", "-m", "harness.compare", *map(str, sources), "--out", str(path)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(comparison, command), encoding="utf-8")


def _page(comparison: Comparison, command: str) -> str:
    lead, *rest = headline(comparison)
    parts = [
        f"<header><h1>{_esc(_title(comparison))}</h1>",
        *(f'<p class="lead">{_esc(line)}</p>' for line in (lead, *rest)),
        *(f'<p class="note" role="note">{_esc(line)}</p>' for line in notes(comparison)),
        "</header>",
        _tables(comparison),
        _curves(comparison),
        _costs(comparison),
        _training(comparison),
        _samples(comparison),
        _configuration(comparison),
        _runs(comparison),
        _provenance(comparison, command),
    ]
    body = "\n".join(part for part in parts if part)
    return document(_title(comparison), body, STYLE, SCRIPT)


def _title(comparison: Comparison) -> str:
    models = ", ".join(dict.fromkeys(group.model for group in comparison.groups))
    data = ", ".join(dict.fromkeys(group.data for group in comparison.groups))
    return f"{models} on {data}" if comparison.groups else "Language models compared"


def _tables(comparison: Comparison) -> str:
    parts = []
    if comparison.ranked:
        table = _group_table(comparison.ranked, 0, lossy=False)
        caption = " ".join(filter(None, (by_tokenizer(comparison), MEANS_NOTE)))
        parts.append(_section("Ranking", table, f'<p class="caption">{_esc(caption)}</p>'))
    if comparison.lossy:
        caption = (
            f'<p class="caption">Not ranked: {LOSSY_NOTE}. '
            "Nats per token compare models on one tokenizer only. "
            f"{_esc(' '.join(losses(comparison)))}</p>"
        )
        table = _group_table(comparison.lossy, len(comparison.ranked), lossy=True)
        parts.append(_section("Lossy tokenizers", table, caption))
    return "\n".join(parts)


def _group_table(groups: Sequence[Group], first_style: int, *, lossy: bool) -> str:
    shown = columns(groups, lossy=lossy)
    rank = "" if lossy else '<th scope="col" class="rank">#</th>'
    heads = "".join(
        f'<th scope="col"{_kind(column)}><button type="button">{column.header}'
        f"{f'<small>{column.unit}</small>' if column.unit else ''}</button></th>"
        for column in shown
    )
    rows = []
    for index, group in enumerate(groups):
        place = sum(other.data == group.data for other in groups[: index + 1])
        cells = "" if lossy else f'<td class="rank">{place}</td>'
        for column in shown:
            text, key = column.read(group)
            mark = _swatch(first_style + index) if column.header == "model" else ""
            cells += f'<td{_kind(column)} data-key="{_esc(str(key))}">{mark}{_esc(text)}</td>'
        rows.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{rank}{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _kind(column: Column) -> str:
    return ' class="text"' if column.is_text else ""


def _swatch(style: int) -> str:
    return svg.swatch(style) if style < plots.MOST_DRAWN else ""


def _curves(comparison: Comparison) -> str:
    styled = plots.drawable(comparison.ranked)
    panels = [(axis, plots.validation_series(styled, axis)) for axis in plots.CURVE_AXES]
    panels = [(axis, series) for axis, series in panels if series]
    if not panels:
        return ""
    inputs, labels, bodies = "", "", ""
    for index, (axis, series) in enumerate(panels):
        checked = " checked" if index == 0 else ""
        inputs += f'<input type="radio" name="axis" id="axis-{axis.key}"{checked}>'
        labels += f'<label for="axis-{axis.key}">{axis.name}</label>'
        title = "validation bits per byte"
        bodies += f'<div class="panel">{_figure(series, axis, title, f"val-{axis.key}")}</div>'
    caption = (
        "Validation bits per byte, the whole split at each evaluation: mean over seeds, the band "
        "from the lowest to the highest seed. Costs are training's alone. "
    )
    if any(max(line.x) <= 0 for axis, series in panels if axis.log for line in series):
        caption += "A model whose counted cost is zero is drawn as a level line at its last value. "
    return _section(
        "Validation loss over",
        f'<div class="tabs">{inputs}<div class="tablist">{labels}</div>'
        f"{_legend(panels[0][1])}{bodies}</div>",
        f'<p class="caption">{caption}{_left_out(comparison.ranked)}</p>',
    )


def _figure(series: Sequence[plots.Series], axis: plots.Axis, y_title: str, name: str) -> str:
    """The same figure twice, for wide pages and for phones: text can't shrink with the drawing."""
    wide = _drawing(series, axis, y_title, f"{name}-wide", plots.WIDE)
    narrow = _drawing(series, axis, y_title, f"{name}-narrow", plots.NARROW)
    return f'<figure><div class="wide">{wide}</div><div class="narrow">{narrow}</div></figure>'


def _small_figure(series: Sequence[plots.Series], axis: plots.Axis, y_title: str, name: str) -> str:
    return f"<figure>{_drawing(series, axis, y_title, name, plots.SMALL)}</figure>"


def _drawing(
    series: Sequence[plots.Series],
    axis: plots.Axis,
    y_title: str,
    name: str,
    size: tuple[float, float],
) -> str:
    ends = {f"curve-{line.style}": f"{line.label} ends at {line.y[-1]:.3f}" for line in series}
    description = f"{y_title} over {axis.title}: {'; '.join(ends.values())}"
    figure = plots.curves_figure(series, axis, y_title, svg.PLACEHOLDERS, size)
    return svg.inline_svg(figure, name, description, ends)


def _legend(series: Sequence[plots.Series]) -> str:
    entries = "".join(f"<li>{svg.swatch(line.style)}{_esc(line.label)}</li>" for line in series)
    return f'<ul class="legend">{entries}</ul>'


def _left_out(groups: Sequence[Group]) -> str:
    more = len(groups) - plots.MOST_DRAWN
    return f"Only the first {plots.MOST_DRAWN} rows are drawn; {more} more are in the table." * (
        more > 0
    )


def _costs(comparison: Comparison) -> str:
    if not comparison.ranked:
        return ""
    drawn = ""
    for cost in plots.SCATTER_COSTS:
        figure = plots.scatter_figure(comparison.ranked, cost, svg.PLACEHOLDERS, plots.SMALL)
        titles = {
            f"point-{style}": (
                f"{group.label}: {score(own)} bits per byte, {human(spent.mean)} {cost.title}"
            )
            for style, group in plots.drawable(comparison.ranked)
            if (own := group.spread(ranking_score)) and (spent := group.spread(cost.read))
        }
        description = f"test bits per byte against {cost.title}: {'; '.join(titles.values())}"
        drawing = svg.inline_svg(figure, f"test-{cost.name}", description, titles)
        drawn += f"<figure>{drawing}</figure>"
    caption = (
        "Test bits per byte against what it took; lower left is better. "
        "Whiskers: one standard deviation over seeds. "
    )
    return _section(
        "Quality against cost",
        f'<div class="three">{drawn}</div>',
        f'<p class="caption">{caption}{_left_out(comparison.ranked)}</p>',
    )


def _training(comparison: Comparison) -> str:
    """Losses per token, so one figure for each tokenizer; lossy ones show validation too."""
    styled = plots.drawable(comparison.groups)
    steps = plots.CURVE_AXES[0]
    pictures = []
    for tokenizer in dict.fromkeys(group.tokenizer for _, group in styled):
        own = [(style, group) for style, group in styled if group.tokenizer == tokenizer]
        lossy = [(style, group) for style, group in own if group in comparison.lossy]
        pictures.append((tokenizer, "training", plots.training_series(own)))
        validation = plots.validation_series(lossy, steps, "val/nats_per_token")
        pictures.append((tokenizer, "validation", validation))
    pictures = [picture for picture in pictures if picture[2]]
    if not pictures:
        return ""
    drawn = ""
    for number, (tokenizer, split, series) in enumerate(pictures):
        y_title = f"{split} loss, nats per token"
        name = f"loss-{number}"
        figure = (
            _figure(series, steps, y_title, name)
            if len(pictures) == 1
            else _small_figure(series, steps, y_title, name)
        )
        drawn += (
            f"<div><h3>{split.capitalize()} · {_esc(tokenizer)}</h3>{_legend(series)}{figure}</div>"
        )
    caption = (
        '<p class="caption">Nats per token compare models on one tokenizer only. '
        "Training losses are of random batches, averaged over neighbouring steps.</p>"
    )
    grid = "three" if len(pictures) > 1 else "one"
    return _section("Losses per token", f'<div class="{grid}">{drawn}</div>', caption)


def _samples(comparison: Comparison) -> str:
    cards = ""
    for style, group in enumerate(comparison.groups):
        run = next((run for run in group.counted if run.sample), None)
        if run and run.sample:
            text = run.sample[:SAMPLE_CHARACTERS]
            more = " …" if len(run.sample) > SAMPLE_CHARACTERS else ""
            cards += (
                f"<article><h3>{_swatch(style)}{_esc(group.label)}</h3>"
                f'<p class="caption">seed {_seed(run)}, after step {run.sample_step}</p>'
                f"<pre>{_esc(text)}{more}</pre></article>"
            )
    return _section("Sampled text", f'<div class="cards">{cards}</div>') if cards else ""


def _seed(run: RunRecord) -> str:
    return "?" if run.seed is None else f"{run.seed:g}"


def _configuration(comparison: Comparison) -> str:
    groups = comparison.groups + comparison.unscored
    keys = sorted({key for group in groups for key in group.config})
    differing = [key for key in keys if len({group.config.get(key) for group in groups}) > 1]
    if not differing:
        return ""
    heads = "".join(f'<th scope="col" class="text">{_esc(group.label)}</th>' for group in groups)
    rows = "".join(
        f'<tr><th scope="row" class="text"><code>{_esc(key)}</code></th>'
        + "".join(f'<td class="text">{_esc(group.config.get(key, "–"))}</td>' for group in groups)
        + "</tr>"
        for key in differing
    )
    return _section(
        "What differs in the configurations",
        f'<div class="scroll"><table><thead><tr><th class="text">key</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>",
        '<p class="caption">Seeds and file locations are left out; every other key is equal.</p>',
    )


def _runs(comparison: Comparison) -> str:
    reasons = {run.folder: reason for run, reason in comparison.uncounted}
    rows = ""
    for run in sorted(comparison.records, key=lambda run: (run.folder in reasons, run.folder)):
        reason = reasons.get(run.folder)
        own = lossy_score(run) if not run.lossless else ranking_score(run)
        unit = "nats/token" if not run.lossless else "bits/byte"
        result = f"{own:.3f} {unit}" if reason is None and own is not None else ""
        kind = "ok" if reason is None else "not"
        rows += (
            f'<tr class="{kind}"><td class="text"><code>'
            f"{_esc(run_name(run, comparison.records))}</code></td>"
            f'<td class="text">{_esc(run.model)}</td><td class="text">{_esc(run.tokenizer)}</td>'
            f'<td>{_seed(run)}</td><td class="text status">{_esc(run.status)}</td>'
            f'<td>{result}</td><td class="text why">{_esc(plain(reason or ""))}</td></tr>'
        )
    heads = (
        '<th class="text">run</th><th class="text">model</th><th class="text">tokenizer</th>'
        '<th>seed</th><th class="text">status</th><th>test</th>'
        '<th class="text">why it is not counted</th>'
    )
    return _section(
        "Every run",
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>",
    )


def _provenance(comparison: Comparison, command: str) -> str:
    rows = ""
    for title, read in (
        ("git", lambda run: run.git),
        ("machine", lambda run: run.machine),
        ("versions", lambda run: run.versions),
    ):
        stated = dict.fromkeys(
            ", ".join(f"{key} {value}" for key, value in sorted(read(run).items()))
            for run in comparison.records
            if read(run)
        )
        for text in stated:
            rows += f"<dt>{title}</dt><dd>{_esc(text)}</dd>"
    return _section(
        "Made with",
        f"<dl>{rows}</dl>" if rows else "",
        f"<p>This page again:</p><pre>{_esc(command)}</pre>",
    )


STYLE = """
main{max-width:1160px;margin:0 auto;padding:2.5rem 1.25rem 4rem}
.lead{font-size:1.35rem;line-height:1.4;max-width:46em;margin:0 0 1rem;text-wrap:pretty}
.rank{color:var(--muted);font-weight:400;width:1.5rem}
th button{all:unset;cursor:pointer;line-height:1.2}
th small{display:block;font-weight:400;color:var(--muted);font-size:.8em;min-height:1.2em}
th[aria-sort] button{text-decoration:underline;text-underline-offset:3px}
.sortable tbody tr:hover{background:var(--tint)}
.why{white-space:normal;min-width:16rem;color:var(--muted)}
.not .status{color:var(--warn);font-weight:600}
.narrow,.tabs .legend,.one .legend{display:none}
.tablist{display:inline-flex;flex-wrap:wrap;border-bottom:1px solid var(--grid)}
.tablist label{padding:.3rem .9rem;cursor:pointer;color:var(--muted);margin-bottom:-1px;
border-bottom:2px solid transparent}
.panel{display:none}
.tabs input:nth-of-type(1):checked~.panel:nth-of-type(2),
.tabs input:nth-of-type(2):checked~.panel:nth-of-type(3),
.tabs input:nth-of-type(3):checked~.panel:nth-of-type(4),
.tabs input:nth-of-type(4):checked~.panel:nth-of-type(5){display:block}
.tabs input:nth-of-type(1):checked~.tablist label:nth-of-type(1),
.tabs input:nth-of-type(2):checked~.tablist label:nth-of-type(2),
.tabs input:nth-of-type(3):checked~.tablist label:nth-of-type(3),
.tabs input:nth-of-type(4):checked~.tablist label:nth-of-type(4){color:var(--ink);
font-weight:600;border-bottom-color:var(--ink)}
.tabs input{position:absolute;opacity:0}
.tabs input:focus-visible~.tablist{outline:2px solid var(--series-0);outline-offset:3px}
.three{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:1rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:1.2rem}
.cards h3{margin:0}.cards .caption{margin:0}
dl{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1.2rem;font-size:.9rem;margin:0}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:760px){main{padding-top:1.4rem}.lead{font-size:1.12rem}
.wide{display:none}.narrow{display:block}.tabs .legend,.one .legend{display:flex}
.sortable .rank{display:none}th,td{padding:.4rem .5rem}
.sortable .rank+*,.sortable tr>:first-child:not(.rank){position:sticky;left:0;padding-left:0;
background:var(--paper)}}
@media print{.panel{display:block}.tablist{display:none}}
"""

SCRIPT = """
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.key;
    const number = (text) => (text === "" ? Infinity : Number(text));
    const order = (a, b) => head.classList.contains("text")
      ? key(a).localeCompare(key(b)) : number(key(a)) - number(key(b)) || 0;
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
  });
}
"""
