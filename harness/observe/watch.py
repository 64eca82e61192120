"""What can be seen of a training from inside: activations, gradients, updates, weights, attention.

Watching never changes what it watches. Every `observe.every` steps the batch goes through the model
once more, forward, without dropout, and a row gets numbers under these names:

    activations/<layer>/mean, std, histogram
    activations/<layer>/saturation            tanh, sigmoid: the share near the ends of the range
    activations/<layer>/inactive              ReLU, GELU, SiLU: the share at (next to) zero
    attention/<module>/entropy/<head>         nats, mean over queries; 0: one key has all
    gates/<layer>/openness                    the mean of a sigmoid
    gradients/<parameter>/norm, histogram     as the optimizer gets them, clipped
    weights/<parameter>/norm, spectral_norm
    updates/<parameter>/log10_ratio           of the update's norm to the weights'; -3 is usual

and, with observe=full, every evaluation

    dead/<layer>/share                        of units inactive over the whole validation split
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
from harness.config.settings import Settings
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.observe import findings
from harness.observe.by_position import loss_by_position, over_patch, over_ranges
from harness.observe.hooks import KINDS, Layer, watching
from harness.observe.quantities import histogram, spectral_norm
from zoo.language_model import LanguageModel
from zoo.roles import roles, unstacked


class Watch:
    """What the loop calls; off, it does nothing. A row is filled in where it stands."""

    def __init__(self, settings: Settings, model: LanguageModel, compute: Compute) -> None:
        self._settings = settings
        self._every, self._full = settings.observe.every, settings.observe.full
        self._model, self._compute = model, compute
        # What is a matrix, or several: maps' weights and embeddings.
        self._tables = {
            name: role
            for name, role in roles(model).items()
            if role is not None and (role.matrix or role.embedding)
        }
        self._weights = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (self._full or name in self._tables)
        }
        self._before: list[Tensor] = []
        self._findings = findings.Findings()

    @contextmanager
    def update(self, row: Row, inputs_BT: Tensor) -> Iterator[None]:
        """Around an update of the weights. inputs: a micro-batch of the step, (B, T)."""
        self._before_update(row, inputs_BT)
        yield
        self._after_update(row)

    def _before_update(self, row: Row, inputs_BT: Tensor) -> None:
        """Activations, attention, gradients and weights, where this step is one to observe."""
        if self._every is None or row["step"] % self._every:
            return
        numbers = self._activations(row, inputs_BT)
        with torch.no_grad():
            self._before = [parameter.detach().clone() for parameter in self._weights.values()]
            for name, parameter in self._weights.items():
                numbers[f"weights/{name}/norm"] = parameter.norm()
                if self._full and name in self._tables:
                    norms = [spectral_norm(w) for w in unstacked(parameter, self._tables[name])]
                    numbers[f"weights/{name}/spectral_norm"] = torch.stack(norms).max()
                if parameter.grad is not None:
                    numbers[f"gradients/{name}/norm"] = parameter.grad.norm()
                    if self._full:
                        row[f"gradients/{name}/histogram"] = histogram(parameter.grad)
        row |= _values(numbers)

    def _after_update(self, row: Row) -> None:
        """How far the update went, whatever optimizer, decay and limits made of the gradients."""
        if not self._before:
            return
        numbers = {}
        for (name, parameter), before in zip(self._weights.items(), self._before, strict=True):
            numbers[name] = (parameter.detach() - before).norm() / before.norm()
        self._before = []
        for name, ratio in _values(numbers).items():
            if math.isfinite(ratio) and ratio > 0:  # else it was zero, or was not updated
                row[f"updates/{name}/log10_ratio"] = math.log10(ratio)
        # A bias that began at zero may well change by more than it is: that is no finding.
        others = self._weights.keys() - self._tables.keys()
        ratios = {f"updates/{name}/log10_ratio" for name in others}
        self._findings.add({name: value for name, value in row.items() if name not in ratios})

    @contextmanager
    def validation(self, model: LanguageModel, split: Split, row: Row) -> Iterator[None]:
        """Around the evaluation of `model`, the one that counts, on the validation split."""
        if self._every is None or not self._full:
            yield
            return
        units = _Units()
        with watching(model, units.look):
            yield
        row |= units.shares()
        plan, was_training = self._settings.train, model.training
        model.eval()
        with batch_norm.batch_statistics(model, plan.batch_norm == "batch"):
            loss_T = loss_by_position(
                model, split.ids, self._compute, plan.seq_len, self._settings.eval.batch_size
            )
        model.train(was_training)
        row |= {f"val/loss_by_position/{k}": loss for k, loss in over_ranges(loss_T).items()}
        if model.patch_size is not None:
            for place, loss in enumerate(over_patch(loss_T, model.patch_size)):
                row[f"val/loss_by_patch_position/{place}"] = loss
        self._findings.add(row)

    def findings(self) -> list[str]:
        """What has come to look wrong since it was last asked, a line each."""
        return self._findings.news()

    def _activations(self, row: Row, inputs_BT: Tensor) -> dict[str, Tensor]:
        numbers: dict[str, Tensor] = {}
        entropies: dict[tuple[str, int], list[Tensor]] = {}
        last: Tensor | None = None

        def on_output(layer: Layer, output: Tensor) -> None:
            nonlocal last
            # What a module only hands on is its last part's, and was seen there.
            wanted = self._full or layer.kind or layer.block or layer.name == "features"
            if not wanted or output is last:
                return
            last, values = output, output.float()
            name = f"activations/{layer.name}"
            numbers[f"{name}/mean"] = values.mean()
            numbers[f"{name}/std"] = values.std(correction=0)
            if layer.kind and (rest := KINDS[layer.kind]):
                numbers[f"{name}/{rest.word}"] = rest.test(output).float().mean()
            if layer.kind == "sigmoid":
                numbers[f"gates/{layer.name}/openness"] = values.mean()
            if self._full:
                row[f"{name}/histogram"] = histogram(values)

        def on_attention(name: str, entropy_BHT: Tensor) -> None:
            by_head = entropy_BHT.transpose(0, 1).flatten(1)
            entropies.setdefault((name, len(by_head)), []).append(by_head)

        with (
            torch.no_grad(),
            _as_in_training(self._model),
            self._compute.autocast(),
            watching(self._model, on_output, on_attention if self._full else None),
        ):
            self._model(inputs_BT.to(self._compute.device), return_features=True)
        for (name, _), parts in entropies.items():
            for head, entropy in enumerate(torch.cat(parts, dim=1).mean(1)):
                numbers[f"attention/{name}/entropy/{head}"] = entropy
        return numbers


class _Units:
    """Which units of the nonlinearities were ever active, over all that was looked at.

    A unit is an index of a layer's last dimension.
    """

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._idle: dict[str, Tensor] = {}
        """The units that were not active yet: only these need be looked at again."""

    def look(self, layer: Layer, output: Tensor) -> None:
        rest, name = KINDS[layer.kind] if layer.kind else None, layer.name
        if rest is None:
            return
        if name not in self._count:
            self._count[name] = output.shape[-1]
            self._idle[name] = rest.test(output).flatten(0, -2).all(0).nonzero()[:, 0]
        elif len(idle := self._idle[name]):
            self._idle[name] = idle[rest.test(output[..., idle]).flatten(0, -2).all(0)]

    def shares(self) -> Row:
        return {
            f"dead/{name}/share": len(idle) / self._count[name] for name, idle in self._idle.items()
        }


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """The forward pass of training, but for its random draws and for what it leaves behind: batch
    normalization that uses the batch does so here, and its averages stay as they are."""
    modes = {module: module.training for module in model.modules()}
    uses_batch = any(norm.training for norm in batch_norm.layers(model))
    model.eval()
    try:
        with batch_norm.batch_statistics(model, True) if uses_batch else nullcontext():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _values(numbers: dict[str, Tensor]) -> dict[str, float]:
    """Fetched from the device at once."""
    if not numbers:
        return {}
    return dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
