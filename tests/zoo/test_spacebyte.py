"""SpaceByte: its rule, its laws where words begin, and parity with a loop over bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.compute.costs import forward_flops
from tests.conftest import Ended
from tests.small_runs import summary, train
from tests.zoo.architectures import spacebyte as forms
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize
from zoo.spacebyte import SPACELIKE, SpaceByte

SIZES: dict[str, Any] = {
    "block_size": 40, "n_layer_global": 2, "n_head_global": 2, "n_embd_global": 24,
    "n_layer_local": 3, "n_head_local": 2, "n_embd_local": 16, "n_global": 6,
}  # fmt: skip
SMALL = (
    "tokenizer=bytes", "model=spacebyte", "model.n_layer_global=1", "model.n_embd_global=16",
    "model.n_layer_local=2", "model.n_embd_local=16",
)  # fmt: skip


def small(**options: Any) -> SpaceByte:
    return randomize(SpaceByte(256, **SIZES | options).double().eval())  # type: ignore[return-value]


def ids_of(*texts: str) -> Tensor:
    return torch.tensor([list(text.encode()) for text in texts])


def steps(text: str) -> str:
    """A caret under each byte at which a step is due."""
    due = small(block_size=999)._due(ids_of(text), 0, None)[0]
    return "".join(".^"[place] for place in due.int().tolist())


def test_space_like_bytes() -> None:
    """Equation 1 of the paper, spelt out: letters, digits and the bytes that continue a character
    are not space-like; the first byte of a character is."""
    letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    inside = {byte for byte in range(256) if 0b10000000 <= byte <= 0b10111111}
    assert set(SPACELIKE) == set(range(256)) - set(letters) - inside


def test_a_step_is_due_where_a_word_begins() -> None:
    assert steps("the cat, 1 dog") == "^..^...^..^..."
    assert steps("  a  b") == "^..^.."
    assert steps("aäb") == "^^.."
    assert steps("\n\nx.y") == "^..^."


@pytest.mark.parametrize("law", ["causality", "split", "receptive_field", "gradient", "score"])
def test_law_with_words(law: str) -> None:
    """The laws' ids are all space-like by the paper's rule."""
    LAWS[law](maker("spacebyte", *forms.SPACES))


@pytest.mark.parametrize(
    "options",
    [{"bias": True, "tie_weights": True}, {"n_layer_local": 1, "n_global": None}],
    ids=["biased and tied", "all local layers behind"],
)
def test_closed_forms_with_options(options: dict[str, Any]) -> None:
    described = node("spacebyte") | SIZES | options
    model = fresh(described)
    assert sum(p.numel() for p in model.parameters()) == forms.parameters(described, VOCAB)
    counted = forward_flops(lambda: fresh(described), 40)
    assert counted == forms.forward_flops(described, VOCAB, 40)


class Loop:
    """One byte after the other, with lists for a past, from the paper's figure 1."""

    def __init__(self, model: SpaceByte) -> None:
        self.model = model
        self.pasts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.steps = self.position = 0
        self.was_space = False

    @staticmethod
    def norm(x: Tensor, module: nn.Module) -> Tensor:
        centred = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        return centred * module.weight + (0 if module.bias is None else module.bias)  # type: ignore

    @staticmethod
    def linear(x: Tensor, module: nn.Module) -> Tensor:
        return module.weight @ x + (0 if module.bias is None else module.bias)  # type: ignore

    def block(self, name: str, x: Tensor) -> Tensor:
        block = self.model.get_submodule(name)
        attention: Any = block.attention
        q, k, v = self.linear(self.norm(x, block.attention_norm), attention.qkv).chunk(3)  # type: ignore
        heads = []
        for head in range(len(q) // attention.n_channels):
            part = slice(head * attention.n_channels, (head + 1) * attention.n_channels)

            def scaled(each: Tensor, by: Any) -> Tensor:
                return each / (each.square().mean() + 1e-5).sqrt() * by.weight

            past = self.pasts.setdefault(f"{name}.{head}", [])
            past.append((scaled(k[part], attention.k_norm), v[part]))
            query = scaled(q[part], attention.q_norm)
            weights = torch.stack([query @ key for key, _ in past]) / len(query) ** 0.5
            values = torch.stack([value for _, value in past])
            heads.append(weights.softmax(0) @ values)
        x = x + self.linear(torch.cat(heads), attention.projection)
        inner = self.linear(self.norm(x, block.feed_forward_norm), block.feed_forward.expand)  # type: ignore
        return x + self.linear(inner.relu(), block.feed_forward.projection)  # type: ignore

    def __call__(self, byte: int) -> Tensor:
        """The logits behind it, (V,)."""
        model = self.model
        x = model.token_embedding.weight[byte] + model.position_embedding.weight[self.position]
        half = len(model.local_blocks) // 2
        for layer in range(half):
            x = self.block(f"local_blocks.{layer}", x)
        is_space = byte in SPACELIKE
        if (self.position == 0 or (is_space and not self.was_space)) and self.steps < 6:
            wider = torch.cat([torch.zeros(8, dtype=x.dtype), x])
            wider = wider + model.step_embedding.weight[self.steps]
            for layer in range(len(model.global_blocks)):
                wider = self.block(f"global_blocks.{layer}", wider)
            x = x + wider[8:]
            self.steps += 1
        for layer in range(half, len(model.local_blocks)):
            x = self.block(f"local_blocks.{layer}", x)
        self.position, self.was_space = self.position + 1, is_space
        return self.linear(self.norm(x, model.norm), model.head)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_equals_a_loop_over_bytes(bias: bool) -> None:
    """Two rows whose words begin at different places, one with more of them than steps."""
    model = small(bias=bias)
    texts = "To be, or not to be: that is the ques…ti", "  antidisestablishmentarianism ÄÖü 12 "
    ids = torch.cat([ids_of(text)[:, :40] for text in texts])
    expected = torch.stack([torch.stack(list(map(Loop(model), row.tolist()))) for row in ids])
    torch.testing.assert_close(model(ids), expected, rtol=0, atol=1e-10)
    for cuts in ([], [1, 2, 3], [5, 21], list(range(1, 40))):
        cache = model.init_cache(2)
        parts = [model(part, cache) for part in ids.tensor_split(cuts, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-10)
        assert cache.tensors["steps"].tolist() == [6, 5]


def test_an_end_marker_begins_a_step() -> None:
    model = SpaceByte(257, **SIZES)
    assert model._due(torch.tensor([[97, 98, 256, 97, 32]]), 0, None).tolist() == [
        [True, False, True, False, True]
    ]


def test_a_later_byte_moves_no_boundary() -> None:
    """The boundary itself, apart from the numbers that hang on it: of every prefix it is the
    same."""
    model = small(block_size=60)
    ids = random_ids(8, 60, vocab_size=256)
    whole = model._due(ids, 0, None)
    for end in range(1, 60):
        assert torch.equal(model._due(ids[:, :end], 0, None), whole[:, :end])


def test_a_training_and_its_certificate(tmp_path: Path) -> None:
    assert train(tmp_path, *SMALL) == 0
    assert summary(tmp_path)["certificate"].startswith("passed")


def test_other_tokenizers_are_refused_in_one_line(
    tmp_path: Path, command: Callable[..., Ended], small_text: Path
) -> None:
    run = tmp_path / "run"
    for tokenizer in ("char", "bpe"):
        ended = command(
            "train", "model=spacebyte", f"tokenizer={tokenizer}", "data=text",
            f"data.path={small_text}", f"run_dir={run}",
        )  # fmt: skip
        assert ended.code == 2
        words = f"error: model=spacebyte reads bytes: choose tokenizer=bytes, not {tokenizer}"
        assert ended.err.splitlines() == [words]
    assert not run.exists()


@pytest.mark.parametrize(
    ("vocab_size", "options", "words"),
    [
        (258, {}, "reads bytes: 258 ids are too many"),
        (256, {"n_embd_local": 32}, "n_embd_local=32 exceeds n_embd_global=24"),
        (256, {"spacelike": [300]}, "are not bytes, 0 to 255"),
        (256, {"n_global": 0}, "n_global=0 must be at least 1"),
    ],
)
def test_refused(vocab_size: int, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpaceByte(vocab_size, **SIZES | options)
