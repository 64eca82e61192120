"""Our WaveNet and recurrent nets against the same functions in torch's own modules.

python experiments/2026-11-29-speed/against_torch.py [--threads N] [--pairs N] [ROW …]

A recurrent net of theirs is nn.Embedding, nn.RNN, nn.GRU or nn.LSTM, and nn.Linear; a WaveNet is
nn.Conv1d behind F.pad, as public ones are, and samples by computing its receptive field anew for
each token. Both have the zoo's default sizes and the same weights: first it is shown that logits
and gradients are equal. A step is forward, backward, clipping at 1 and fused AdamW. Each side is in
a process of its own, and they take turns, as in against.py.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from against import CHARACTERS, Row, Side, batch, measure, optimizing, our_step
from torch import Tensor, nn

from harness.cli.hydra_app import compose
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import read_settings
from harness.sampling.decode import SamplingParams, generate
from zoo.language_model import LanguageModel
from zoo.recurrent import Recurrent
from zoo.wavenet import WaveNet

MODELS = ("lstm", "gru", "rnn", "wavenet")
SHAPES = ((12, 64), (8, 512))
SAMPLED = 255
MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class TorchRecurrent(nn.Module):
    """The modules of torch in a row, with the weights of ours."""

    def __init__(self, name: str, ours: Recurrent) -> None:
        super().__init__()
        first: nn.RNNBase = ours.layers[0]
        self.embedding = nn.Embedding(ours.vocab_size, first.input_size)
        sizes = (first.input_size, ours.n_hidden, len(ours.layers))
        self.layers = MODULES[name](*sizes, batch_first=True)
        self.head = nn.Linear(ours.n_hidden, ours.vocab_size)
        self.embedding.load_state_dict(ours.token_embedding.state_dict())
        self.head.load_state_dict(ours.head.state_dict())
        for number, layer in enumerate(ours.layers):
            for key, weight in layer.state_dict().items():
                self.layers.get_parameter(key.replace("_l0", f"_l{number}")).data.copy_(weight)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.embedding(ids_BT))[0])

    def sample(self, tokens: int) -> Tensor:
        ids_11, state = torch.zeros(1, 1, dtype=torch.long), None
        made = []
        for _ in range(tokens):
            features_11H, state = self.layers(self.embedding(ids_11), state)
            ids_11 = torch.multinomial(self.head(features_11H)[:, -1].softmax(-1), 1)
            made.append(ids_11)
        return torch.cat(made, dim=1)


class TorchWaveNet(nn.Module):
    """Channels before time throughout, as nn.Conv1d has them."""

    def __init__(self, ours: WaveNet) -> None:
        super().__init__()
        self.receptive_field = ours.receptive_field
        self.embedding = nn.Embedding(ours.vocab_size, ours.token_embedding.embedding_dim)
        self.embedding.load_state_dict(ours.token_embedding.state_dict())
        assert ours.initial_conv is not None
        self.first = _copy(ours.initial_conv.conv)
        self.blocks = nn.ModuleList()
        for block in ours.blocks:
            maps = [block.skip, block.residual] if block.residual is not None else [block.skip]
            conv = _copy(block.conv.conv, block.conv.dilation)
            self.blocks.append(nn.ModuleList([conv, *map(_one_by_one, maps)]))
        assert isinstance(ours.output, nn.Sequential)
        self.hidden, self.head = _one_by_one(ours.output[1]), _one_by_one(ours.head)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BCT = self.embedding(ids_BT).transpose(1, 2)
        x_BCT = self.first(F.pad(x_BCT, (1, 0)))
        total_BCT = torch.zeros(())
        for conv, skip, *residual in self.blocks:
            y_BCT = conv(F.pad(x_BCT, (conv.dilation[0], 0)))
            a_BCT, b_BCT = y_BCT.chunk(2, dim=1)
            z_BCT = torch.tanh(a_BCT) * torch.sigmoid(b_BCT)
            total_BCT = total_BCT + skip(z_BCT)
            for each in residual:  # the last block has none
                x_BCT = x_BCT + each(z_BCT)
        return self.head(F.relu(self.hidden(F.relu(total_BCT)))).transpose(1, 2)

    def sample(self, tokens: int) -> Tensor:
        ids_1T = torch.zeros(1, 1, dtype=torch.long)
        for _ in range(tokens):
            logits_1V = self(ids_1T[:, -self.receptive_field :])[:, -1]
            ids_1T = torch.cat([ids_1T, torch.multinomial(logits_1V.softmax(-1), 1)], dim=1)
        return ids_1T


def _copy(conv: nn.Conv1d, dilation: int = 1) -> nn.Conv1d:
    made = nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size, dilation=dilation)
    made.load_state_dict(conv.state_dict())
    return made


def _one_by_one(linear: nn.Linear) -> nn.Conv1d:
    made = nn.Conv1d(linear.in_features, linear.out_features, 1)
    made.weight.data, made.bias.data = linear.weight.data[..., None].clone(), linear.bias.data
    return made


def both(name: str) -> tuple[TorchRecurrent | TorchWaveNet, LanguageModel]:
    """Theirs with the weights of ours, and ours."""
    torch.manual_seed(0)
    settings = read_settings(compose([f"model={name}"]))
    ours = build_model(settings, CHARACTERS)
    if isinstance(ours, WaveNet):
        return TorchWaveNet(ours), ours
    assert isinstance(ours, Recurrent)
    return TorchRecurrent(name, ours), ours


def difference(name: str) -> float:
    """The largest of logits and of gradients, as a share of the largest of each; in float64."""
    x, y = batch(CHARACTERS, 4, 80)
    found = []
    for model in both(name):
        logits_BTV = model.double()(x)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), y.flatten())
        gradients = torch.autograd.grad(loss, [*model.parameters()])  # in the same order
        found.append((logits_BTV.detach(), torch.cat([each.flatten() for each in gradients])))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def step(name: str, rows: int, time: int, precision: str) -> Row:
    def make_theirs(device: str) -> Side:
        theirs, _ = both(name)
        x, y = batch(CHARACTERS, rows, time)
        optimizer = torch.optim.AdamW(theirs.parameters(), 1e-3, fused=True)

        def loss() -> Tensor:
            with torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext():
                return F.cross_entropy(theirs(x).flatten(0, 1), y.flatten())

        return Side(optimizing(theirs, optimizer, loss))

    words = [f"model={name}", f"precision={precision}"]
    return Row(make_theirs, lambda device: our_step(words, CHARACTERS, rows, time, device))


def sampling(name: str) -> Row:
    def make_theirs(device: str) -> Side:
        sample = torch.inference_mode()(both(name)[0].eval().sample)
        return Side(lambda: sample(SAMPLED))

    def make_ours(device: str) -> Side:
        Compute.choose(device, "fp32", matmul="auto")  # as a run has it
        ours, prompt = both(name)[1].eval(), torch.zeros(1, 1, dtype=torch.long)
        return Side(lambda: generate(ours, prompt, SAMPLED, SamplingParams()))

    return Row(make_theirs, make_ours)


ROWS = {
    f"step {name}, {rows} × {time}, {precision}": step(name, rows, time, precision)
    for name in MODELS for rows, time in SHAPES for precision in ("fp32", "bf16")
} | {f"{SAMPLED} characters, {name}": sampling(name) for name in MODELS}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="parts of the names of rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"torch {torch.__version__}, {given.threads} threads")
    for name in MODELS:
        print(f"{name}: logits and gradients differ by {difference(name):.1g} at most, in float64")
    print("\n| what | theirs, ms | ours, ms | ratio | half of the pairs | of the products' rate |")
    print("|---|---:|---:|---:|---|---:|")
    for row in ROWS:
        if not given.rows or any(part in row for part in given.rows):
            number = max(5, given.pairs // 4) if "512" in row else given.pairs
            print(measure("against_torch", "ROWS", row, "cpu", number), flush=True)


if __name__ == "__main__":
    main()
