"""Train a model from another start for a few hundred steps; print first loss, early loss, score.

python experiments/2026-11-28-fair-starts/starts.py SCHEME STEPS model=gpt optimizer.lr=3e-3 seed=0

SCHEME: a name that `init` has; `fan_in:EMBEDDING`, every map normal with variance 1 / fan in, maps
into a residual stream divided by the root of their number, an untied head at a tenth, a tied one so
that logits begin at one half, other embeddings with that standard deviation; or `small_head`,
xavier, but for the same two heads.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn

from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.data.batches import draw_batch
from harness.diagnostics.probe import checked_compute
from harness.evaluation.score import score_split
from harness.training.run import load_dataset
from harness.training.schedules import Schedule
from harness.training.trainer import Trainer
from zoo.initialization import residual_maps
from zoo.language_model import LanguageModel
from zoo.roles import matrices, roles

EARLY = slice(90, 110)  # steps


def redraw(model: LanguageModel, scheme: str) -> None:
    name, _, embedding = scheme.partition(":")
    streams = [residual_maps(model.get_submodule(s), model.residual) for s in model.streams]
    added = {id(each.weight): len(maps) for maps in streams for each in maps}
    known = roles(model)
    for key, parameter in model.named_parameters():
        role = known[key]
        assert role is not None, f"{key} is unmarked"
        if role.bias:
            nn.init.zeros_(parameter)
        elif role.embedding and role.output:
            nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter.shape[1]))
        elif role.embedding and name == "fan_in":
            nn.init.normal_(parameter, std=float(embedding))
        elif role.embedding:
            nn.init.xavier_uniform_(parameter)
        elif role.matrix:
            for weight in matrices(parameter.detach(), role):
                draw(weight, name, role.output, added.get(id(parameter), 1))


def draw(weight: Tensor, name: str, output: bool, added: int) -> None:
    if name == "small_head" and not output:
        nn.init.xavier_uniform_(weight)
    else:
        std = (0.1 if output else 1.0) / math.sqrt(weight[0].numel())
        nn.init.normal_(weight, std=std / math.sqrt(added))


def main(scheme: str, steps: int, *overrides: str) -> None:
    own = scheme.partition(":")[0] in ("fan_in", "small_head")
    init = [] if own else [f"init={scheme}"]
    settings = read_settings(compose([*overrides, *init, f"train.steps={steps}", "precision=fp32"]))
    compute, dataset = checked_compute(settings), load_dataset(settings)
    trainer = Trainer(settings, dataset.tokenizer.vocab_size, compute)
    if own:
        torch.manual_seed(settings.seed)
        redraw(trainer.model, scheme)
    schedule = settings.build("schedule", Schedule, total=steps)
    plan, losses = settings.train, []
    for step in range(steps):
        batch = draw_batch(dataset.train.ids, settings.seed, step, plan.batch_size, plan.seq_len)
        row = {"step": step}
        trainer.step(batch, schedule(step), row)
        losses.append(row["train/loss"])
    early = sum(losses[EARLY]) / len(losses[EARLY])
    assert dataset.val is not None, "the text has no validation split"
    score = score_split(trainer.evaluated, dataset.val, dataset.tokenizer, compute, 64, 64)
    print(
        f"{scheme} {' '.join(overrides)}: first loss {losses[0]:.3f}, steps 90 to 110 {early:.3f}, "
        f"validation {score.bits_per_byte:.3f} bits per byte"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
