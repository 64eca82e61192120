"""The networks of makemore's lectures in plain torch: what they reach with batches of 32 examples,
as there, and of 5 whole names, as in the harness; with and without batch normalization. Written
anew; nothing of the harness is used.

    python lecture.py names.txt mlp_3 --norm batch --seeds 3
    python lecture.py names.txt mlp_3 --norm batch --seeds 1 --whole 5

Several seeds are trained side by side. Prints for each the nats per prediction of train and
validation. S seeds, B batch, W window, N = B·(nodes of a layer), C channels.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

# window, embedding, hidden units, how many neighbours a layer joins
NETS = {
    "mlp_3": (3, 10, 200, 3),
    "mlp_8": (8, 10, 200, 8),
    "tree_22k": (8, 10, 68, 2),
    "tree_76k": (8, 24, 128, 2),
}


class Nets:
    """S networks of one shape."""

    def __init__(self, name: str, seeds: int, norm: bool) -> None:
        window, n_embd, n_hidden, self.join = NETS[name]
        generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]

        def normal(*shape: int, std: float = 1.0) -> Tensor:
            return torch.stack([torch.randn(shape, generator=g) * std for g in generators])

        self.seeds, self.generators = seeds, generators
        self.embedding = normal(27, n_embd)
        self.maps: list[Tensor] = []  # (S, in, out)
        self.shifts: list[Tensor] = []  # (S, 1, out): a bias, or batch normalization's
        self.scales: list[Tensor] = []
        self.running: list[tuple[Tensor, Tensor]] = []
        width = n_embd
        while window > 1:
            fan_in = self.join * width
            self.maps.append(normal(fan_in, n_hidden, std=(1 if norm else 5 / 3) / fan_in**0.5))
            self.shifts.append(torch.zeros(seeds, 1, n_hidden))
            if norm:
                self.scales.append(torch.ones(seeds, n_hidden))
                self.running.append((torch.zeros(seeds * n_hidden), torch.ones(seeds * n_hidden)))
            width, window = n_hidden, window // self.join
        self.head = normal(n_hidden, 27, std=0.1 / n_hidden**0.5), torch.zeros(seeds, 1, 27)
        self.weights = [self.embedding, *self.maps, *self.shifts, *self.scales, *self.head]
        for weight in self.weights:
            weight.requires_grad_()

    def logits(self, ids_SBW: Tensor, training: bool) -> Tensor:
        first_S11 = 27 * torch.arange(self.seeds)[:, None, None]
        x_SNC = F.embedding(ids_SBW + first_S11, self.embedding.flatten(0, 1)).flatten(1, 2)
        for layer, (weight, shift) in enumerate(zip(self.maps, self.shifts, strict=True)):
            x_SNC = x_SNC.reshape(self.seeds, -1, weight.shape[1])  # side by side
            if self.scales:
                x_NSC = (x_SNC @ weight).transpose(0, 1)
                y = F.batch_norm(
                    x_NSC.flatten(1), *self.running[layer], self.scales[layer].flatten(),
                    shift.flatten(), training=training,
                )  # fmt: skip
                x_SNC = y.view_as(x_NSC).transpose(0, 1)
            else:
                x_SNC = torch.baddbmm(shift, x_SNC, weight)
            x_SNC = torch.tanh(x_SNC)
        return torch.baddbmm(self.head[1], x_SNC, self.head[0])

    @torch.no_grad()
    def score(self, ids_MW: Tensor, targets_M: Tensor) -> list[float]:
        """Nats per prediction, of each seed."""
        nats_S = torch.zeros(self.seeds)
        for ids, targets in zip(ids_MW.split(4096), targets_M.split(4096), strict=True):
            logits_SBV = self.logits(ids.expand(self.seeds, -1, -1), training=False)
            nats_S -= logits_SBV.log_softmax(-1)[:, torch.arange(len(ids)), targets].sum(1)
        return (nats_S / len(ids_MW)).tolist()


def examples(names: list[str], window: int) -> tuple[Tensor, Tensor]:
    contexts, targets = [], []
    for name in names:
        context = [0] * window
        for target in [ord(letter) - 96 for letter in name] + [0]:
            contexts.append(context)
            targets.append(target)
            context = [*context[1:], target]
    return torch.tensor(contexts), torch.tensor(targets)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", type=Path)
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--norm", choices=["batch", "none"], required=True)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--drop", type=float, default=0.75, help="share at a rate of 0.1, not 0.01")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole", type=int, help="whole names in a batch, with --seeds 1")
    args = parser.parse_args()
    if args.whole and args.seeds != 1:
        parser.error("--whole needs --seeds 1: several seeds would draw unlike numbers of examples")

    names = args.names.read_text().split()
    random.Random(42).shuffle(names)
    first, second = int(0.8 * len(names)), int(0.9 * len(names))
    window = NETS[args.net][0]
    train = examples(names[:first], window)
    val = examples(names[first:second], window)
    lengths = torch.tensor([len(name) + 1 for name in names[:first]])
    of_names = torch.arange(len(train[0])).split(lengths.tolist())  # the examples of each

    def draw(generator: torch.Generator) -> Tensor:
        if args.whole is None:
            return torch.randint(len(train[0]), (32,), generator=generator)
        which = torch.randint(len(of_names), (args.whole,), generator=generator)
        return torch.cat([of_names[name] for name in which])

    nets = Nets(args.net, args.seeds, args.norm == "batch")
    for step in range(args.steps):
        drawn = torch.stack([draw(generator) for generator in nets.generators])
        logits_SBV = nets.logits(train[0][drawn], training=True)
        loss = F.cross_entropy(logits_SBV.flatten(0, 1), train[1][drawn].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss / drawn.shape[1], nets.weights)
        with torch.no_grad():
            rate = 0.1 if step < args.drop * args.steps else 0.01
            torch._foreach_add_(nets.weights, gradients, alpha=-rate)
    size = sum(weight.numel() for weight in nets.weights) // args.seeds
    drawn_from = "examples" if args.whole is None else f"{args.whole} names"
    for seed, scores in enumerate(zip(nets.score(*train), nets.score(*val), strict=True)):
        print(
            f"{args.net} norm={args.norm} {drawn_from} steps={args.steps} drop={args.drop}",
            f"seed={seed} parameters={size} train={scores[0]:.4f} val={scores[1]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
