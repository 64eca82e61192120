"""A table of the optimizer's parameter groups."""

from __future__ import annotations

import sys
from collections.abc import Collection

from rich.table import Table
from torch import Tensor, nn

from harness.common.console import Console
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.training.checks import check_settings
from harness.training.counting import require_steps
from harness.training.optim import configured_groups
from harness.training.parameter_groups import group_by_pattern, unmarked_line
from harness.training.run import load_dataset


def print_groups(settings: Settings) -> int:
    """Print the groups and the unmarked parameters on stdout."""
    check_settings(settings)
    require_steps(settings)
    model = meta_model(settings, load_dataset(settings).tokenizer.vocab_size)
    Console(file=sys.stdout, highlight=False).print(table(settings, model))
    if line := unmarked_line(model):
        print(line)
    return 0


def table(settings: Settings, model: nn.Module) -> Table:
    """Each group above its parameters; the same parameter of several layers shares a row."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = Table(box=None, pad_edge=False)
    found.add_column("group", overflow="fold")
    for column in ("shape", "tensors", "parameters"):
        found.add_column(column, justify="right", no_wrap=True)
    optimizer = str(settings.optimizer["_target_"]).rpartition(".")[2]
    for group in configured_groups(settings, model):
        named = {names[id(parameter)]: parameter for parameter in group["params"]}
        maps = dict(zip(named, group["maps"], strict=True))
        how = optimizer
        if optimizer == "Muon":
            how = "Muon" if group["hidden"] else "AdamW"
            how += ", each of a stack" if group["stack"] else ""
        head = f"{how}, peak rate {group['lr']:g}, decay {group['weight_decay']:g}"
        found.add_row(head, "", *_counts(named.values()), style="bold")
        for name, members in group_by_pattern(named).items():
            parameters = [named[member] for member in members]
            shapes = {"×".join(map(str, parameter.shape)) for parameter in parameters}
            shape = shapes.pop() if len(shapes) == 1 else "several"
            if settings.optimizer.get("per_map") and (own := maps[members[0]]):
                name += f", each of {len(own)} maps"
            found.add_row(f"  {name}", shape, *_counts(parameters))
    return found


def _counts(parameters: Collection[Tensor]) -> tuple[str, str]:
    """The numbers of tensors and of parameters."""
    return str(len(parameters)), f"{sum(parameter.numel() for parameter in parameters):,}"
