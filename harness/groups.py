"""How the optimizer treats each parameter: its rate, its decay, and who updates it.

python -m harness.groups model=gpt optimizer=muon
python -m harness.groups model=hf model.config.model_type=mamba tokenizer=char
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from harness import config
from harness.cli import run_hydra

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

    from harness.config import Settings


def task(cfg: DictConfig) -> int:
    """Print a table on stdout, a row for each group, and what is unmarked."""
    import torch
    from rich.console import Console

    from harness import train
    from harness.measure import Undrawn
    from harness.parameter_groups import abbreviated, unmarked
    from zoo.language_model import LanguageModel

    settings = config.read(cfg)
    train.check(settings)
    vocab_size = train.load_dataset(settings).tokenizer.vocab_size
    with torch.device("meta"), Undrawn():
        model = settings.build("model", LanguageModel, vocab_size=vocab_size)
    console = Console(file=sys.stdout, highlight=False)
    console.print(table(settings, model), soft_wrap=True)
    if names := abbreviated(unmarked(model)):
        print(f"unmarked, so not decayed (zoo/roles.py): {', '.join(names)}")
    return 0


def table(settings: Settings, model: nn.Module) -> Table:
    """The model's groups. Parameters whose names differ in numbers alone share a line."""
    from rich.table import Table

    from harness.optim import groups_of
    from harness.parameter_groups import abbreviated

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = Table(box=None)
    for column in ("peak rate", "decay", "updated by", "tensors", "parameters"):
        found.add_column(column, justify="left" if column == "updated by" else "right")
    found.add_column("names", no_wrap=True)
    optimizer = str(settings.optimizer["_target_"]).rpartition(".")[2]
    for group in groups_of(settings, model):
        parameters = group["params"]
        how = optimizer
        if optimizer == "Muon":
            how = "AdamW" if not group["hidden"] else "Muon"
            how += ", each of a stack" if group["stack"] else ""
        found.add_row(
            f"{group['lr']:g}",
            f"{group['weight_decay']:g}",
            how,
            str(len(parameters)),
            f"{sum(parameter.numel() for parameter in parameters):,}",
            "\n".join(abbreviated(names[id(parameter)] for parameter in parameters)),
        )
    return found


if __name__ == "__main__":
    sys.exit(run_hydra(task))
