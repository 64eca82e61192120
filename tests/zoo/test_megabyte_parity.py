"""MEGABYTE against the paper's formulas in plain loops, in every option."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.compute import costs as measure
from tests.zoo.architectures import megabyte as forms
from tests.zoo.laws import LAWS, TOLERANCE
from tests.zoo.small_megabyte import SIZES, build
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids
from zoo.megabyte import MEGABYTE

Vector = NDArray[np.float64]


class Paper:
    """Section 2.2 in vectors and loops: the logits of one position from the tokens before it."""

    def __init__(self, model: MEGABYTE) -> None:
        self.w = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
        self.patch_size = model.patch_size
        self.convolutions = len(model.convolutions)
        self.cross_patch = model.local_blocks[0].attention.overlap
        self.heads = {"global": SIZES["n_head_global"], "local": SIZES["n_head_local"]}
        self.layers = {"global": SIZES["n_layer_global"], "local": SIZES["n_layer_local"]}

    def linear(self, name: str, x: Vector) -> Vector:
        return self.w[f"{name}.weight"] @ x + self.w.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Vector) -> Vector:
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return self.w[f"{name}.weight"] * x + self.w.get(f"{name}.bias", 0.0)

    def embed(self, ids: list[int]) -> list[Vector]:
        """Equation 1, the convolutions of section 2.3.1 before the positions."""
        x = [self.w["global_embedding.weight"][token] for token in ids]
        for number in range(self.convolutions):
            kernel = self.w[f"convolutions.{number}.conv.weight"]
            bias = self.w[f"convolutions.{number}.conv.bias"]
            size = kernel.shape[2]
            y = []
            for t in range(len(x)):
                total = bias.copy()
                for tap in range(size):
                    if t - size + 1 + tap >= 0:
                        total += kernel[:, :, tap] @ x[t - size + 1 + tap]
                y.append(x[t] + np.maximum(total, 0))
            x = y
        return [x[t] + self.w["position_embedding.weight"][t] for t in range(len(ids))]

    def transformer(
        self, which: str, x: list[Vector], sees: Callable[[int], range], rotary: bool
    ) -> list[Vector]:
        for layer in range(self.layers[which]):
            block = f"{which}_blocks.{layer}"
            q, k, v = [], [], []
            for i, each in enumerate(x):
                qkv = self.linear(
                    f"{block}.attention.qkv", self.norm(f"{block}.attention_norm", each)
                )
                heads = [part.reshape(self.heads[which], -1) for part in np.split(qkv, 3)]
                q.append(turn(heads[0], i) if rotary else heads[0])
                k.append(turn(heads[1], i) if rotary else heads[1])
                v.append(heads[2])
            for i in range(len(x)):
                said = []
                for head in range(self.heads[which]):
                    weights = np.array(
                        [
                            np.exp(q[i][head] @ k[j][head] / np.sqrt(len(k[j][head])))
                            for j in sees(i)
                        ]
                    )
                    weights /= weights.sum()
                    said.append(
                        sum(weight * v[j][head] for weight, j in zip(weights, sees(i), strict=True))
                    )
                attended = x[i] + self.linear(f"{block}.attention.projection", np.concatenate(said))
                inner = self.linear(
                    f"{block}.feed_forward.expand",
                    self.norm(f"{block}.feed_forward_norm", attended),
                )
                x[i] = attended + self.linear(
                    f"{block}.feed_forward.projection", np.maximum(inner, 0)
                )
        return [self.norm(f"{which}_norm", each) for each in x]

    def logits(self, ids: list[int]) -> Vector:
        """Of the token after these: equations 2 to 6, at position len(ids)."""
        size, last = self.patch_size, len(ids)
        embedded = self.embed(ids)
        patches = [self.w["global_start"]]
        for k in range(last // size):
            patches.append(np.concatenate(embedded[k * size : (k + 1) * size]))
        outputs = self.transformer("global", patches, lambda k: range(k + 1), rotary=False)
        x = []
        for position in range(last + 1):
            k, p = divmod(position, size)
            part = np.split(outputs[k], size)[p]
            if p == 0:
                before = self.w["local_start"]
            else:
                before = self.w["local_embedding.weight"][ids[position - 1]]
            x.append(self.w["global_to_local.weight"] @ part + before)

        def sees(position: int) -> range:
            begin = position - position % size
            return range(max(0, begin - self.cross_patch), position + 1)

        outputs = self.transformer("local", x, sees, rotary=self.cross_patch > 0)
        return self.w["head.weight"] @ outputs[last]


def turn(heads: Vector, position: int) -> Vector:
    """Rotary positions: channels i and i + D/2 turned by position · 10000^(-2i/D)."""
    out = heads.copy()
    half = heads.shape[1] // 2
    for i in range(half):
        angle = position * 10000.0 ** (-2 * i / heads.shape[1])
        out[:, i] = heads[:, i] * np.cos(angle) - heads[:, half + i] * np.sin(angle)
        out[:, half + i] = heads[:, half + i] * np.cos(angle) + heads[:, i] * np.sin(angle)
    return out


def distance(model: MEGABYTE, paper: Paper, tokens: int = 12) -> float:
    """The largest difference of any logit of a window."""
    ids = random_ids(2, tokens, vocab_size=SIZES["vocab_size"])
    with torch.no_grad():
        logits = model(ids).numpy()
    expected = [[paper.logits(row[: t + 1]) for t in range(tokens)] for row in ids.tolist()]
    return float(np.abs(logits - np.array(expected)).max())


@pytest.mark.parametrize("cross_patch", ["none", "one", "all"])
@pytest.mark.parametrize(
    "kernel_sizes", [(), (3, 5, 7), pytest.param((1,), marks=pytest.mark.long)]
)
@pytest.mark.parametrize("patch_size", [1, pytest.param(3, marks=pytest.mark.long), 4, 12])
def test_every_position_is_the_papers(
    patch_size: int, kernel_sizes: tuple[int, ...], cross_patch: str
) -> None:
    seen = {"none": 0, "one": 1, "all": patch_size}[cross_patch]
    for bias, tied in itertools.product((True, False), repeat=2):
        model = build(
            patch_size, kernel_sizes=kernel_sizes, cross_patch=seen, bias=bias, tie_weights=tied
        )
        assert (model.head.weight is model.local_embedding.weight) == tied
        assert distance(model, Paper(model), 7 if bias else 12) <= TOLERANCE


def _unshifted(model: MEGABYTE) -> None:
    """Global step k reads patch k, which it is there to predict."""
    patches = model._patches
    model._patches = lambda *past: patches(*past).roll(-1, 1)  # type: ignore[method-assign]


def _no_start_patch(model: MEGABYTE) -> None:
    model.global_start.data.zero_()


def _no_start_embedding(model: MEGABYTE) -> None:
    model.local_start.data.zero_()


def _late_positions(model: MEGABYTE) -> None:
    table = model.position_embedding
    table.forward = lambda at: table.weight[(at + 1) % 12]  # type: ignore[method-assign]


def _band_too_wide(model: MEGABYTE) -> None:
    for block in model.local_blocks:
        block.attention.overlap += 1


def _no_rotation(model: MEGABYTE) -> None:
    for block in model.local_blocks:
        block.attention.rotary_theta = None


def _slices_in_channel_order(model: MEGABYTE) -> None:
    """Each position gets every P-th channel of the patch's output instead of D_G neighbours."""
    norm = model.global_norm.forward
    model.global_norm.forward = lambda x: (  # type: ignore[method-assign]
        norm(x).unflatten(-1, (-1, model.patch_size)).mT.flatten(-2)
    )


@pytest.mark.parametrize(
    "mutate",
    [
        _unshifted, _no_start_patch, _no_start_embedding, _late_positions, _band_too_wide,
        _no_rotation, _slices_in_channel_order,
    ],
)  # fmt: skip
def test_the_reference_notices(mutate: Callable[[MEGABYTE], None]) -> None:
    model = build(3, cross_patch=2, kernel_sizes=(3,))
    paper = Paper(model)
    assert distance(model, paper) <= TOLERANCE
    mutate(model)
    assert distance(model, paper) > 1e-3


OPTIONS = {
    "everything": ("model.kernel_sizes=[3,5,7]", "model.cross_patch=2", "model.tie_weights=false"),
    "no biases": ("model.bias=false", "model.cross_patch=4", "model.n_embd_local=64"),
    "patches of one": ("model.patch_size=1", "model.cross_patch=1", "train.seq_len=24"),
    "one patch": ("model.patch_size=24", "model.n_embd_global=96", "train.seq_len=24"),
    "patches of five": ("model.patch_size=5", "model.n_embd_global=100", "train.seq_len=30"),
}


LONG = {"no biases", "one patch", "patches of one"}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=[pytest.mark.long] if o in LONG else []) for o in OPTIONS]
)
def test_law_with_options(options: str, law: str) -> None:
    LAWS[law](maker("megabyte", *OPTIONS[options]))


@pytest.mark.parametrize("options", OPTIONS)
def test_closed_forms_with_options(options: str) -> None:
    model_node = node("megabyte", *OPTIONS[options])
    model = fresh(model_node)
    assert measure.parameters(model)["total"] == forms.parameters(model_node, VOCAB)
    for time in (1, 10, model.block_size):
        counted = measure.forward_flops(lambda: fresh(model_node), time)
        assert counted == pytest.approx(forms.forward_flops(model_node, VOCAB, time), rel=0.01)


def test_decoding_takes_one_global_step_a_patch_and_one_local_step_a_token() -> None:
    model = build(4, cross_patch=2, kernel_sizes=(3,))
    steps: dict[str, list[int]] = {"global": [], "local": []}
    for which, blocks in (("global", model.global_blocks), ("local", model.local_blocks)):
        blocks[0].register_forward_hook(
            lambda block, inputs, output, which=which: steps[which].append(output.shape[1])
        )
    ids = random_ids(1, 12, vocab_size=7)
    cache = model.init_cache(1)
    model(ids[:, :5], cache)
    assert steps == {"global": [2], "local": [6]}  # the start patch and one; the first position
    for t in range(5, 12):
        model(ids[:, t : t + 1], cache)
    assert steps == {"global": [2, 1, 1], "local": [6] + [1] * 7}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block_size": 10}, "block_size=10 is not a multiple of patch_size=4"),
        ({"n_embd_global": 18}, "n_embd_global=18 is not a multiple of patch_size=4"),
        ({"n_head_global": 3}, "n_embd_global=16 is not a multiple of n_head_global=3"),
        ({"n_head_local": 3}, "n_embd_local=8 is not a multiple of n_head_local=3"),
        ({"patch_size": 0}, "patch_size=0 must be at least 1"),
        ({"cross_patch": 5}, "cross_patch=5 must lie between 0 and patch_size=4"),
        ({"kernel_sizes": (3, 0)}, "kernel_size=0"),
        ({"init_std": 0.0}, "init_std=0 must be above 0"),
        ({"n_layer_local": 0}, "n_layer_local=0 must be at least 1"),
    ],
)
def test_what_makes_no_model_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MEGABYTE(**{**SIZES, "patch_size": 4, "n_embd_global": 16, **wrong})
