"""A W&B workspace that compares architectures: curves with a colour for each architecture and a
band over its seeds."""

from __future__ import annotations

from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from harness.common.errors import RunFailure, UsageError

SCORE = "val/bits_per_byte"
BEST, TEST = "best/bits_per_byte", "test/bits_per_byte"
SPEED = "train/tokens_per_second"
# W&B's key of a flat setting whose name has dots.
MODEL = "names.model.value"
# The x axes of scores, with their titles.
AXES = {
    "flops": "training FLOPs",
    "tokens": "training tokens",
    "bytes": "bytes of text",
    "seconds": "training seconds",
    "step": "steps",
}
COSTS = {
    "train/flops": "training FLOPs",
    "parameters/total": "parameters",
    "train/seconds": "training seconds",
    "train/peak_memory_bytes": "peak memory, bytes",
}


def workspace(entity: str, project: str, group: str | None) -> ws.Workspace:
    """The workspace: losses, scores against costs, and throughput."""

    def curve(y: str, x: str, title: str) -> Any:
        return wr.LinePlot(
            title=f"{y} over {title}", x=x, y=[y], title_x=title, log_x=x == "flops",
            groupby=wr.Config(MODEL), groupby_aggfunc="mean", groupby_rangefunc="minmax",
        )  # fmt: skip

    def scatter(x: str, y: str, title: str) -> Any:
        return wr.ScatterPlot(
            title=f"{y} against {title}", x=wr.SummaryMetric(x), y=wr.SummaryMetric(y), log_x=True
        )

    def bars(metric: str, title: str) -> Any:
        return wr.BarPlot(
            title=title, metrics=[metric], groupby=wr.Config(MODEL),
            groupby_aggfunc="mean", groupby_rangefunc="minmax",
        )  # fmt: skip

    sections = {
        "Loss": [
            *(curve(SCORE, x, title) for x, title in AXES.items()),
            curve("train/loss", "tokens", AXES["tokens"]),
        ],
        "Quality against cost": [
            *(scatter(x, BEST, title) for x, title in COSTS.items()),
            bars(TEST, "test bits per byte"),
        ],
        "Throughput": [
            bars(SPEED, "training tokens per second"),
            curve("tokens", "seconds", AXES["seconds"]),
        ],
    }
    columns = ("config:names.model.value", "config:names.tokenizer.value", "config:seed.value")
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Architectures" + (f" of {group}" if group else ""),
        sections=[
            ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()
        ],
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == group) if group else "",
            groupby=[ws.Config(MODEL)],
            order=[ws.Ordering(ws.Summary(BEST), ascending=True)],
            pinned_columns=[*columns, *(f"summary:{name}" for name in (BEST, TEST, SPEED))],
        ),
    )


def save(entity: str | None, project: str, group: str | None) -> str:
    """Save the workspace and return its URL.

    Raises UsageError without an account, RunFailure without a server.
    """
    wandb.setup(settings=wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        raise UsageError("not logged in to W&B: `wandb login` first")
    try:
        api = wandb.Api(timeout=15)
        page = workspace(entity or str(api.default_entity), project, group).save()
    except (wandb.Error, OSError, ValueError) as error:
        raise RunFailure(f"W&B did not take the page: {' '.join(str(error).split())}") from error
    return str(page.url)
