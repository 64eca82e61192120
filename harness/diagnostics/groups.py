"""How the optimizer treats each parameter, as a table."""

from __future__ import annotations

import sys
from collections.abc import Collection

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from harness.compute.costs import NoInitialization
from harness.config.settings import Settings
from harness.training.checks import check_settings
from harness.training.optim import groups_of
from harness.training.parameter_groups import abbreviated, unmarked
from harness.training.run import load_dataset
from zoo.language_model import LanguageModel


def print_groups(settings: Settings) -> int:
    """Print a table on stdout, a row for each group, and what is unmarked."""
    check_settings(settings)
    vocab_size = load_dataset(settings).tokenizer.vocab_size
    with torch.device("meta"), NoInitialization():
        model = settings.build("model", LanguageModel, vocab_size=vocab_size)
    console = Console(file=sys.stdout, highlight=False)
    console.print(table(settings, model))
    if line := unmarked(model):
        print(line)
    return 0


def table(settings: Settings, model: nn.Module) -> Table:
    """The model's groups, each above what is in it. Parameters whose names differ in numbers alone
    share a row."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = Table(box=None, pad_edge=False)
    found.add_column("group", overflow="fold")
    for column in ("shape", "tensors", "parameters"):
        found.add_column(column, justify="right", no_wrap=True)
    optimizer = str(settings.optimizer["_target_"]).rpartition(".")[2]
    for group in groups_of(settings, model):
        named = {names[id(parameter)]: parameter for parameter in group["params"]}
        how = optimizer
        if optimizer == "Muon":
            how = "Muon" if group["hidden"] else "AdamW"
            how += ", each of a stack" if group["stack"] else ""
        head = f"{how}, peak rate {group['lr']:g}, decay {group['weight_decay']:g}"
        found.add_row(head, "", *_counts(named.values()), style="bold")
        for name, members in abbreviated(named).items():
            parameters = [named[member] for member in members]
            shapes = {"×".join(map(str, parameter.shape)) for parameter in parameters}
            shape = shapes.pop() if len(shapes) == 1 else "several"
            found.add_row(f"  {name}", shape, *_counts(parameters))
    return found


def _counts(parameters: Collection[Tensor]) -> tuple[str, str]:
    """How many tensors, and how many numbers in them."""
    return str(len(parameters)), f"{sum(parameter.numel() for parameter in parameters):,}"
