"""Observes a training: activations, gradients, updates, weights, attention. Changes nothing.

Every `observe.every` steps the model does one more forward pass over a micro-batch, without
dropout, and the row gets these numbers:

    activations/<layer>/mean, std, histogram
    activations/<layer>/saturation            tanh, sigmoid: the share near the ends of the range
    activations/<layer>/inactive              ReLU, GELU, SiLU: the share at (next to) zero
    attention/<module>/entropy/<head>         nats, mean over queries; 0: all weight on one key
    gates/<layer>/openness                    the mean of a sigmoid
    gradients/<parameter>/norm, histogram     after clipping
    weights/<parameter>/norm, spectral_norm
    updates/<parameter>/log10_ratio           update norm / weight norm; -3 is usual

with observe=full also at every evaluation

    dead/<layer>/share                        units inactive on the whole validation split
    val/loss_by_position/<range>              `harness.observe.by_position`
    val/loss_by_patch_position/<place>
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from harness.common.rows import Row
from harness.compute.device import Compute
from harness.compute.modes import eval_mode
from harness.config.settings import Settings
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.observe.by_position import loss_by_position, over_patch, over_ranges
from harness.observe.findings import Findings
from harness.observe.hooks import KINDS, Layer, hook_forward
from harness.observe.quantities import histogram, spectral_norm
from zoo.language_model import LanguageModel
from zoo.roles import roles, unstacked


class Observer:
    """Adds its numbers to the loop's rows; with observe=off it does nothing."""

    def __init__(self, settings: Settings, model: LanguageModel, compute: Compute) -> None:
        self._settings = settings
        self._every, self._full = settings.observe.every, settings.observe.full
        self._model, self._compute = model, compute
        # The weights of linear maps and convolutions, and embeddings.
        self._matrices = {
            name: role
            for name, role in roles(model).items()
            if role is not None and (role.matrix or role.embedding)
        }
        self._weights = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (self._full or name in self._matrices)
        }
        self._findings = Findings()

    @contextmanager
    def update(self, row: Row, inputs_BT: Tensor) -> Iterator[None]:
        """Around an update. inputs: a micro-batch of the step, (B, T)."""
        if self._every is None or row["step"] % self._every:
            yield
            return
        before = self._before_update(row, inputs_BT)
        yield
        self._after_update(row, before)

    def _before_update(self, row: Row, inputs_BT: Tensor) -> list[Tensor]:
        """Activations, attention, gradients and weights; returns a copy of the weights."""
        numbers = self._activations(row, inputs_BT)
        with torch.no_grad():
            before = [parameter.detach().clone() for parameter in self._weights.values()]
            for name, parameter in self._weights.items():
                numbers[f"weights/{name}/norm"] = parameter.norm()
                if self._full and name in self._matrices:
                    norms = [spectral_norm(w) for w in unstacked(parameter, self._matrices[name])]
                    numbers[f"weights/{name}/spectral_norm"] = torch.stack(norms).max()
                if parameter.grad is not None:
                    numbers[f"gradients/{name}/norm"] = parameter.grad.norm()
                    if self._full:
                        row[f"gradients/{name}/histogram"] = histogram(parameter.grad)
        row |= _to_floats(numbers)
        return before

    def _after_update(self, row: Row, before: list[Tensor]) -> None:
        """The size of the update, after optimizer, weight decay and max-norm."""
        ratios = {
            name: (parameter.detach() - old).norm() / old.norm()
            for (name, parameter), old in zip(self._weights.items(), before, strict=True)
        }
        for name, ratio in _to_floats(ratios).items():
            if math.isfinite(ratio) and ratio > 0:  # else the weight was zero or was not updated
                row[f"updates/{name}/log10_ratio"] = math.log10(ratio)
        # A bias that starts at zero may change by more than its size: not a finding.
        others = self._weights.keys() - self._matrices.keys()
        ignored = {f"updates/{name}/log10_ratio" for name in others}
        self._findings.add({name: value for name, value in row.items() if name not in ignored})

    @contextmanager
    def validation(self, model: LanguageModel, split: Split, row: Row) -> Iterator[None]:
        """Around the evaluation of `model` on the validation split."""
        if self._every is None or not self._full:
            yield
            return
        units = _DeadUnits()
        with hook_forward(model, units.observe):
            yield
        row |= units.shares()
        if split.documents is not None or split.texts:  # windows cut anywhere say nothing of them
            self._findings.add(row)
            return
        plan = self._settings.train
        with eval_mode(model), batch_norm.batch_statistics(model, plan.batch_norm == "batch"):
            loss_T = loss_by_position(
                model, split.ids, self._compute, plan.seq_len, self._settings.eval.batch_size
            )
        row |= {f"val/loss_by_position/{k}": loss for k, loss in over_ranges(loss_T).items()}
        if model.patch_size is not None:
            for place, loss in enumerate(over_patch(loss_T, model.patch_size)):
                row[f"val/loss_by_patch_position/{place}"] = loss
        self._findings.add(row)

    def new_findings(self) -> list[str]:
        """A line for each anomaly found since the last call."""
        return self._findings.pop()

    def _activations(self, row: Row, inputs_BT: Tensor) -> dict[str, Tensor]:
        numbers: dict[str, Tensor] = {}
        entropies: dict[tuple[str, int], list[Tensor]] = {}
        last: Tensor | None = None

        def on_output(layer: Layer, output: Tensor) -> None:
            nonlocal last
            # A module that returns its last part's output was observed there.
            wanted = self._full or layer.kind or layer.block or layer.name == "features"
            if not wanted or output is last:
                return
            last, values = output, output.float()
            name = f"activations/{layer.name}"
            numbers[f"{name}/mean"] = values.mean()
            numbers[f"{name}/std"] = values.std(correction=0)
            if layer.kind and (flat := KINDS[layer.kind]):
                numbers[f"{name}/{flat.name}"] = flat.contains(output).float().mean()
            if layer.kind == "sigmoid":
                numbers[f"gates/{layer.name}/openness"] = values.mean()
            if self._full:
                row[f"{name}/histogram"] = histogram(values)

        def on_attention(name: str, entropy_BHT: Tensor) -> None:
            by_head = entropy_BHT.transpose(0, 1).flatten(1)
            entropies.setdefault((name, len(by_head)), []).append(by_head)

        with (
            torch.no_grad(),
            training_without_dropout(self._model),
            self._compute.autocast(),
            hook_forward(self._model, on_output, on_attention if self._full else None),
        ):
            self._model(inputs_BT.to(self._compute.device), return_features=True)
        for (name, _), parts in entropies.items():
            for head, entropy in enumerate(torch.cat(parts, dim=1).mean(1)):
                numbers[f"attention/{name}/entropy/{head}"] = entropy
        return numbers


class _DeadUnits:
    """The units of the nonlinearities (indices of a layer's last dimension) that are never
    active."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._idle: dict[str, Tensor] = {}  # not active yet: only these need be checked again

    def observe(self, layer: Layer, output: Tensor) -> None:
        flat, name = KINDS[layer.kind] if layer.kind else None, layer.name
        if flat is None:
            return
        if name not in self._count:
            self._count[name] = output.shape[-1]
            self._idle[name] = flat.contains(output).flatten(0, -2).all(0).nonzero()[:, 0]
        elif len(idle := self._idle[name]):
            self._idle[name] = idle[flat.contains(output[..., idle]).flatten(0, -2).all(0)]

    def shares(self) -> Row:
        return {
            f"dead/{name}/share": len(idle) / self._count[name] for name, idle in self._idle.items()
        }


@contextmanager
def training_without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside, a forward pass is that of training without random numbers and side effects: batch
    normalization uses the batch if it does in training, and its averages stay as they are."""
    modes = {module: module.training for module in model.modules()}
    uses_batch = any(norm.training for norm in batch_norm.layers(model))
    model.eval()
    try:
        with batch_norm.batch_statistics(model, True) if uses_batch else nullcontext():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _to_floats(numbers: dict[str, Tensor]) -> dict[str, float]:
    """Fetched from the device in one transfer."""
    if not numbers:
        return {}
    return dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
