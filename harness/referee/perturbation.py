"""What a position's logits may depend on: its own row up to itself, and nothing before the call.

B batch, T time, V vocabulary.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import Tensor, nn

from harness.compute.device import Compute
from harness.compute.modes import eval_mode
from harness.referee.calls import Call, logits_NV
from zoo.language_model import LanguageModel

GOLDEN = 0.6180339887498949  # its multiples, modulo 1, are spread evenly
ROUNDS = 256
ROUTED = 1e-12  # relative; experts add up in an order that depends on the other tokens


def random_ids(rows: int, time: int, vocab_size: int, seed: int) -> Tensor:
    """Every id equally often, the rare ones of a text, too."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (rows, time), generator=generator)


def other_ids(ids_BT: Tensor, vocab_size: int, seed: int) -> Tensor:
    """Ids that differ from these everywhere."""
    generator = torch.Generator().manual_seed(seed)
    steps_BT = torch.randint(1, max(2, vocab_size), ids_BT.shape, generator=generator)
    return (ids_BT + steps_BT) % vocab_size


def spread_cuts(rows: int, time: int, round_: int = 0) -> Tensor:
    """A position for each row, (B,), from 0 to time - 2: all of them if there are enough rows, else
    spread evenly; later rounds have others."""
    first = torch.arange(round_ * rows, (round_ + 1) * rows)
    places_B = first if rows >= time - 1 else ((first * GOLDEN + 0.2) % 1 * (time - 1)).long()
    return places_B % max(1, time - 1)


class Trial:
    """A call on random texts, against the same call where something else is replaced. Each check
    returns what is wrong in words, or None.

    exact: logits must stay bit-equal. Else sums may be in another order, as those of routed experts
    are: equal up to rounding in the call's own precision, and to ROUTED in float64 if the model can
    compute in it.
    """

    def __init__(self, call: Call, vocab_size: int, seed: int = 0, exact: bool = True) -> None:
        self.call, self._vocab_size, self._exact = call, vocab_size, exact
        self._ids_BT = random_ids(call.rows, call.time, vocab_size, seed)
        for round_ in reversed(range(self._rounds())):
            # Each id of the vocabulary is before a cut once, and after one.
            rows_B = torch.arange(call.rows)
            cuts_B = spread_cuts(call.rows, call.time, round_)
            number_B = round_ * call.rows + rows_B
            self._ids_BT[rows_B, cuts_B] = number_B % vocab_size
            self._ids_BT[rows_B, (cuts_B + 1) % call.time] = (number_B * 7 + 3) % vocab_size
        self._other_BT = other_ids(self._ids_BT, vocab_size, seed)
        self._found_BT = call.fingerprints(self._ids_BT)
        if self._found_BT.shape != self._ids_BT.shape:
            raise ValueError(f"{call.what}: not one prediction for each token")

    def ahead(self, cuts_B: Tensor) -> str | None:
        """In each row everything after its cut is replaced: no logits up to the cut may change."""
        after_BT = self._after(cuts_B)
        moved = self._moved(torch.where(after_BT, self._other_BT, self._ids_BT), ~after_BT)
        if moved is None:
            return None
        row, position = moved
        return (
            f"{self.call.what}: the logits at position {position} change if only tokens after "
            f"position {int(cuts_B[row])} are replaced"
        )

    def looks_ahead(self, seconds: float) -> str | None:
        """`ahead` with a cut in every row, and with others until all have been tried or the time
        is up."""
        begun, rows, time = perf_counter(), self.call.rows, self.call.time
        for round_ in range(self._rounds()):
            if round_ >= 2 and perf_counter() - begun > seconds:
                break
            cuts_B = spread_cuts(rows, time, round_)
            if rows == 1 and round_ == 0:
                cuts_B = torch.tensor([time - 2])  # in the last chunk of a stream
            if words := self.ahead(cuts_B):
                return words
        return None

    def _rounds(self) -> int:
        """For every position and every id, but at most ROUNDS."""
        most = max(self.call.time - 1, self._vocab_size)
        return min(ROUNDS, -(-most // self.call.rows))

    def rows(self, round_: int = 0) -> str | None:
        """Half of the rows are replaced: no logits of the others may change."""
        rows = self.call.rows
        kept_B = torch.arange(rows) // 2 ** (round_ // 2) % 2 == round_ % 2
        if rows < 2 or not kept_B.any():
            return None
        changed_BT = torch.where(kept_B[:, None], self._ids_BT, self._other_BT)
        moved = self._moved(changed_BT, kept_B[:, None].expand_as(changed_BT))
        if moved is None:
            return None
        row, position = moved
        return (
            f"{self.call.what}: the logits of row {row} at position {position} change if only "
            "other rows are replaced"
        )

    def memory(self) -> str | None:
        """After calls on other texts the same call gives the same."""
        self.call.fingerprints(self._other_BT)
        everywhere_BT = torch.ones_like(self._ids_BT, dtype=torch.bool)
        if self._moved(self._ids_BT, everywhere_BT) is None:
            return None
        return (
            f"{self.call.what}: the same call gives other logits a second time: the model "
            "remembers earlier calls, or dropout is on"
        )

    def normalized(self) -> str | None:
        """Logits are finite, one for each id, and their softmax adds up to 1."""

        def measure(logits: Tensor, targets_N: Tensor) -> Tensor:
            if logits.dim() != 2 or logits.shape[1] != self._vocab_size:
                raise ValueError(
                    f"logits of shape {tuple(logits.shape)} for {self._vocab_size} ids"
                )
            total_N = logits.double().softmax(-1).sum(-1)
            return ((total_N - 1).abs() < 1e-9) & logits.isfinite().all(-1)

        try:
            right_BT = self.call.run(self._ids_BT, measure).bool()
        except ValueError as error:
            return f"{self.call.what}: {error}"
        if right_BT.all():
            return None
        _, position = (~right_BT).nonzero()[0].tolist()
        return f"{self.call.what}: NaN or infinite logits at position {position}"

    def _after(self, cuts_B: Tensor) -> Tensor:
        return torch.arange(self.call.time) > cuts_B[:, None]

    def _moved(self, ids_BT: Tensor, fixed_BT: Tensor) -> tuple[int, int] | None:
        """Row and position of the first logits among the fixed ones that differ for these ids."""
        moved_BT = (self.call.fingerprints(ids_BT) != self._found_BT) & fixed_BT
        if not moved_BT.any() or (not self._exact and self._only_rounded(ids_BT, fixed_BT)):
            return None
        row, position = moved_BT.nonzero()[0].tolist()
        return row, position

    def _only_rounded(self, ids_BT: Tensor, fixed_BT: Tensor) -> bool:
        def off(call: Call) -> float:
            before, after = (
                call.run(ids, logits_NV)[fixed_BT].double() for ids in (self._ids_BT, ids_BT)
            )
            return ((after - before).abs().max() / before.abs().max()).item()

        if off(self.call) > self.call.rounding:
            return False
        try:
            return off(self.call.in_double()) <= ROUTED
        except RuntimeError:  # no kernels for float64, as for some experts of transformers
            return True


def gradient_from_later(
    model: LanguageModel, compute: Compute, ids_BT: Tensor, cut: int
) -> str | None:
    """The gradient of the logits up to a position, by the embeddings of later tokens, is zero.

    Raises LookupError if ids do not enter by an embedding.
    """
    found: list[Tensor] = []

    def detached(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not inputs or inputs[0].shape != ids_BT.shape or inputs[0].is_floating_point():
            return None
        found.append(output.detach().requires_grad_())
        return found[-1]

    tables = [
        module
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings >= model.vocab_size
    ]
    handles = [module.register_forward_hook(detached) for module in tables]
    try:
        with eval_mode(model), compute.autocast(), torch.enable_grad():
            logits_BTV = model(ids_BT.to(compute.device))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise LookupError("ids do not enter by an embedding")
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(logits_BTV[:, : cut + 1].shape, generator=generator)
    total = (logits_BTV[:, : cut + 1].float() * weights.to(compute.device)).sum()
    gradients = torch.autograd.grad(total, found, allow_unused=True)
    for gradient in gradients:
        if gradient is not None and gradient[:, cut + 1 :].any():
            later = int(gradient[:, cut + 1 :].abs().sum((0, 2)).nonzero()[0]) + cut + 1
            return (
                f"the logits up to position {cut} have a gradient by the embedding of the token at "
                f"position {later}"
            )
    return None
