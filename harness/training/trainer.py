"""One update of the weights: all that train call `Trainer.step`.

B batch, T time, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.common.errors import RunFailure
from harness.common.rows import Row
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.batches import IGNORED
from harness.data.corpus import Corpus
from harness.evaluation import batch_norm
from harness.runs.checkpoint import from_checkpoint
from harness.runs.restore import load_weights, restored
from harness.training.distributed import SINGLE_PROCESS, ProcessGroup
from harness.training.gradients import Gradients
from harness.training.guards import BufferSnapshot, Guard, require_finite_weights
from harness.training.loss import add_gradients
from harness.training.max_norm import apply_max_norm, max_norm_weights
from harness.training.moving_average import MovingAverage
from harness.training.optim import build_optimizer, peak_rates
from harness.training.optimizer_state import load_optimizer_state
from harness.training.packed import features_apart
from harness.training.readings import StepNumbers, fill
from zoo.language_model import LanguageModel

AroundUpdate = Callable[[Row, Tensor], AbstractContextManager[None]]
"""Given a step's row and the inputs of its first micro-batch, (B, T): a context for the update."""


class Trainer:
    """A model in training and all that an update changes: weights, their moving average, optimizer
    state, gradient scaler, guard.

    processes: share each step's micro-batches. check: called before each micro-batch; may raise.
    read_together: so many steps' numbers are read from the device at once, where a step is not
    skipped by what they are.
    """

    def __init__(
        self,
        settings: Settings,
        vocab_size: int,
        compute: Compute,
        processes: ProcessGroup = SINGLE_PROCESS,
        check: Callable[[], None] = lambda: None,
        read_together: int = 1,
    ) -> None:
        self._plan, self._seed = settings.train, settings.seed
        self._compute, self._processes, self._check = compute, processes, check
        torch.manual_seed(settings.seed)
        self.model = build_model(settings, vocab_size)
        self.model.initialize(settings.init, settings.zero_residual).to(compute.device)
        forward = torch.compile(self.model) if settings.compile else self.model
        self._features: Callable[..., Tensor] = partial(forward, return_features=True)
        if settings.build("data", Corpus).rows == "packed":  # the marker is the last id
            self._features = partial(features_apart, self._features, marker=vocab_size - 1)
        ema = settings.train.ema
        self._average = MovingAverage(self.model, ema) if ema is not None else None
        self._optimizer = build_optimizer(settings, self.model)
        self._gradients = Gradients(self.model.parameters())
        self._norms = batch_norm.layers(self.model)
        self._peaks = peak_rates(settings, self.model)
        self._bounded = max_norm_weights(self.model) if self._plan.max_norm is not None else []
        enabled = compute.precision == "fp16"
        self._scaler = torch.amp.GradScaler(compute.device.type, enabled=enabled)
        self._skips = self._plan.on_non_finite == "skip"
        self._read_together = 1 if self._skips or enabled else read_together
        self._unread: list[StepNumbers] = []
        self._read: list[Row] = []
        self.guard = Guard()
        self._buffers = BufferSnapshot(self.model)
        self.model.train()

    @property
    def evaluated(self) -> LanguageModel:
        """The model to evaluate: the moving average if there is one."""
        average = self._average
        return self.model if average is None else cast(LanguageModel, average.module)

    def step(
        self,
        batch: tuple[Tensor, Tensor],
        lr_factor: float,
        row: Row,
        around_update: AroundUpdate = lambda row, inputs_BT: nullcontext(),
    ) -> NDArray[np.integer]:
        """One update from inputs and targets, (B, T) each, in `train.accumulate` micro-batches.

        lr_factor: multiplies the peak learning rates. row: has the `step`; gets losses, rates
        and gradient norms, see `rows_read`. Returns the targets that had a loss, (tokens,). Raises
        NonFiniteError, the weights unchanged, where each step is read.
        """
        plan, step = self._plan, row["step"]
        inputs_BT, targets_BT = batch[0], batch[1][:, plan.trained]
        trained = targets_BT.numpy()[targets_BT.numpy() != IGNORED]
        loss, auxiliary = self._backward(inputs_BT, targets_BT, len(trained), step)
        self._processes.all_reduce([loss, self._gradients.flat, *auxiliary.values()])
        self._scaler.unscale_(self._optimizer)
        clip = plan.clip or math.inf
        norm = self._gradients.clip(clip)
        losses = {f"train/auxiliary/{name}": each for name, each in auxiliary.items()}
        rates = {
            "lr": self._peaks[""] * lr_factor if "" in self._peaks else None,
            **{f"lr/{part}": peak * lr_factor for part, peak in self._peaks.items() if part},
        }
        reading = StepNumbers(row, len(trained), loss, norm, clip, losses, rates)
        self._unread.append(reading)
        if self._read_together > 1 or self._read_all():
            first = slice(plan.batch_size)
            with (
                batch_norm.counting(self._norms, targets_BT[first]),
                around_update(row, inputs_BT[first]),
            ):
                self._update(lr_factor)
        else:
            self._buffers.restore()
        self._scaler.update()
        self._gradients.zero()
        return trained

    def rows_read(self, now: bool = False) -> Iterator[Row]:
        """The rows that are complete since the last call, in order; with `now` all. Raises
        NonFiniteError: then nothing may be saved."""
        if now or len(self._unread) >= self._read_together:
            self._read_all()
        while self._read:
            yield self._read.pop(0)

    def _read_all(self) -> bool:
        """Complete the rows; whether the guard allows the last step's update."""
        unread, self._unread, allowed = self._unread, [], True
        fill(unread)
        late = self._read_together > 1
        if unread and not late:  # who looks at its own row does not ask for it
            self._read.clear()
        for reading in unread:
            self._read.append(reading.row)
            allowed = self.guard.allows_update(
                reading.row, self.model, self._skips, self._scaler.is_enabled(), late
            )
        return allowed

    def _backward(
        self, inputs_BT: Tensor, targets_BT: Tensor, count: int, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add this process's share of the gradients; returns its sum of nats, (), and its share of
        each auxiliary loss, ()."""
        plan, compute = self._plan, self._compute
        # Each target of the step has equal weight, whatever micro-batch it is in.
        weight = self._scaler.scale(torch.full((), 1 / count, device=compute.device))
        loss = torch.zeros((), device=compute.device)
        names = self.model.auxiliary
        auxiliary = {name: torch.zeros((), device=compute.device) for name in names}
        with self._buffers:
            micro_batches = range(math.ceil(len(inputs_BT) / plan.batch_size))
            for number in self._processes.shard(micro_batches):
                self._check()
                part = slice(number * plan.batch_size, (number + 1) * plan.batch_size)
                # Dropout depends on seed, step and micro-batch alone: no generator state to save.
                compute.seed(_mix(self._seed, step, number))
                losses: dict[str, Tensor] = {}
                wanted = {"losses": losses} if names else {}
                with compute.autocast(), batch_norm.counting(self._norms, targets_BT[part]):
                    inputs = compute.put(inputs_BT[part])
                    features_BTC = self._features(inputs, **wanted)
                own = int((targets_BT[part].numpy() != IGNORED).sum())
                for name, each in _declared(losses, names).items():
                    auxiliary[name] += own / count * each.detach()
                loss += add_gradients(
                    self.model,
                    features_BTC[:, plan.trained],
                    compute.put(targets_BT[part]),
                    compute,
                    weight,
                    plan.label_smoothing,
                    [(losses[name], weight * own * names[name]) for name in names],
                )
            self._check()  # before the gradients are exchanged: then all processes are there
        return loss, auxiliary

    def _update(self, lr_factor: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * lr_factor
        self._scaler.step(self._optimizer)
        if self._plan.max_norm is not None:
            apply_max_norm(self._bounded, self._plan.max_norm)
        if self._average is not None:
            self._average.update_parameters(self.model)

    def require_finite_weights(self, step: int) -> None:
        """Before the weights are saved or used. Raises NonFiniteError if one is NaN or infinite."""
        require_finite_weights(self.model, step)
        if self.evaluated is not self.model:
            require_finite_weights(self.evaluated, step)

    def recompute_batch_norm(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the batch normalization statistics of the model, and of its moving average, from
        inputs and targets, (B, T) each."""
        batch_norm.recompute(self.model, batches, self._plan.batch_norm_samples)
        if self.evaluated is not self.model:
            batch_norm.copy_statistics(self.model, self.evaluated)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to resume."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "guard": asdict(self.guard),
        }
        return state if self._average is None else state | {"average": self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a `state_dict` and its `step` into a trainer that has not trained. Raises TypeError
        or ValueError, naming the entry, for a state that does not fit."""
        self.guard = from_checkpoint(Guard, state["guard"])
        if (updates := state["step"] - self.guard.skipped) < 0:
            raise ValueError(f"guard.skipped is {self.guard.skipped} after {state['step']} steps")
        load_optimizer_state(self._optimizer, state["optimizer"], updates)
        load_weights(self.model, state["model"], "model")
        load_scaler(self._scaler, state["scaler"])
        if self._average is not None:
            load_weights(self._average, state["average"], "average")


def _declared(losses: dict[str, Tensor], names: Mapping[str, float]) -> dict[str, Tensor]:
    """The auxiliary losses of a forward pass. Raises RunFailure if they are not those declared."""
    if losses.keys() != names.keys() or any(each.dim() for each in losses.values()):
        given = ", ".join(f"{name} {tuple(each.shape)}" for name, each in losses.items())
        raise RunFailure(
            f"the model declares the auxiliary losses {', '.join(names)}, one number each, and "
            f"gives {given or 'none'}"
        )
    return losses


def load_scaler(scaler: torch.amp.GradScaler, saved: object) -> None:
    """Load the loss scale. Raises ValueError for one that no training could have reached."""
    own = scaler.state_dict()
    given = restored(dict(own), saved, "scaler")
    if not own:
        return
    for name, value in given.items():
        if name not in ("scale", "_growth_tracker") and value != own[name]:
            raise ValueError(f"scaler.{name} is {value}, not {own[name]}")
    if not (0 < given["scale"] < math.inf):
        raise ValueError(f"scaler.scale is {given['scale']}")
    if not (0 <= given["_growth_tracker"] < given["growth_interval"]):
        raise ValueError(f"scaler._growth_tracker is {given['_growth_tracker']}")
    scaler.load_state_dict(given)


def _mix(*numbers: int) -> int:
    """One generator seed for each run's seed, step and micro-batch."""
    return int.from_bytes(sha256(repr(numbers).encode()).digest()[:8])
