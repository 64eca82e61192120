"""Any causal language model of Hugging Face's transformers, by configuration, from random weights.

Wolf et al. 2020 (arXiv 1910.03771). Nothing is downloaded and no remote code is run. What a model
is said to do is not taken on trust: when it is built it is tried on a few tokens. If it looks
ahead it is refused; its own cache is used only if that gives what a call over all tokens gives,
and what the cache is called in the release at hand is found out.
B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

# Read when transformers is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive
from zoo.roles import LINEAR

LOG = logging.getLogger(__name__)

# Types without positions, whose state has a fixed size and goes on from any chunk.
UNBOUNDED = ("mamba2", "xlstm")
# What types and releases of transformers call a model's past, as an argument and in the output: the
# first from release 5.24 on, the next two before it.
PAST_NAMES = ("cache", "past_key_values", "cache_params", "state")
# What differs by less, as a share of the largest logit, is rounding in fp32.
TOLERANCE = 1e-4


class HuggingFace(LanguageModel):
    """The model that `config` describes by its model_type and settings of that type.

    block_size becomes the configuration's max_position_embeddings; types in UNBOUNDED have no
    limit. receptive_field is an upper bound: a type with sliding windows in every layer sees less.
    What the configuration leaves out is as transformers has it, except that dropout is 0, that
    there are no special tokens (a padding token would never learn), and that RWKV does not change
    its weights when it evaluates.

    `head` maps hidden states to logits; where more follows them than a linear map (a soft cap, a
    scale), the features are the logits. A type whose cache does not hold what it promises keeps the
    ids instead and computes every token from all before it, which is slow, and the log says so.
    What a type would add to the loss, such as the balance of its experts, is left out.

    Raises ValueError for a type or a setting that transformers does not have, and for a model that
    is not causal.
    """

    def __init__(self, vocab_size: int, block_size: int, config: dict[str, Any]) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, block_size=block_size)
        model_type = str(config.get("model_type"))
        model = _build(model_type, vocab_size, block_size, config)
        self.vocab_size = vocab_size
        self.block_size = None if model_type in UNBOUNDED else block_size
        self.receptive_field = self.block_size
        arguments = inspect.signature(model.forward).parameters
        self.past_name = next((name for name in PAST_NAMES if name in arguments), None)
        self.keeps_past = self.past_name is not None
        self.body: nn.Module = model
        self.head: nn.Module = nn.Identity()
        head, body = model.get_output_embeddings(), model.base_model
        if isinstance(head, nn.Linear):  # wherever in the model it stays
            vars(head)["parameter_roles"] = {"weight": dataclasses.replace(LINEAR, output=True)}
        is_linear = isinstance(head, nn.Linear) and body is not model
        if is_linear and _hold_all_parameters([body, head], model):
            self.body, self.head = body, head
        if next(self.parameters()).is_meta:
            self._require_countable(model_type)
        else:
            self._try_out(model, model_type)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        if cache is None:
            return self._run(ids_BT)[0]
        assert isinstance(cache, Past)
        if self.keeps_past:
            x_BTC, kept = self._run(ids_BT, cache.kept, use_cache=True)
            cache.keep(kept)
            return x_BTC
        seen_BT = ids_BT if cache.kept is None else torch.cat([cache.kept, ids_BT], dim=1)
        cache.keep(seen_BT)
        return self._run(seen_BT)[0][:, past:]

    def init_cache(self, batch_size: int) -> Cache:
        return Past()

    def _run(self, ids_BT: Tensor, past: Any = None, use_cache: bool = False) -> tuple[Tensor, Any]:
        options: dict[str, Any] = {}
        if self.past_name is not None:
            options = {"use_cache": use_cache, self.past_name: past}
        with _Unpadded() if ids_BT.is_meta else contextlib.nullcontext():
            output = self.body(input_ids=ids_BT, **options)
        features_BTC = output["logits" if "logits" in output else "last_hidden_state"]
        return features_BTC, output.get(self.past_name) if use_cache else None

    def _require_countable(self, model_type: str) -> None:
        """Raises ValueError if no costs can be counted: a way through the model asks for values."""
        ids_BT = torch.zeros(1, min(8, self.block_size or 8), dtype=torch.int64, device="meta")
        try:
            self(ids_BT).sum().backward()
        except Exception as error:  # as in _build
            raise ValueError(
                f"the costs of this {model_type} can't be counted: {_one_line(error)}"
            ) from error
        self.zero_grad()

    @torch.no_grad()
    def _try_out(self, model: nn.Module, model_type: str) -> None:
        """Find out whether the model is causal, the head all that follows, and the cache right."""
        self.eval()
        # Weights that begin as zeros would hide what passes through them.
        zeros = [parameter for parameter in self.parameters() if not parameter.any()]
        generator = torch.Generator(next(self.parameters()).device).manual_seed(0)
        for parameter in zeros:
            parameter.normal_(std=0.02, generator=generator)
        time = min(8, self.block_size or 8)
        ids_BT = torch.arange(2 * time, device=generator.device).view(2, time) % self.vocab_size
        other_BT = ids_BT.clone()
        other_BT[:, -1] = (other_BT[:, -1] + 1) % self.vocab_size
        try:
            logits_BTV = model(input_ids=ids_BT).logits
        except Exception as error:  # as in _build
            raise ValueError(f"this {model_type} can't run: {_one_line(error)}") from error
        if logits_BTV.shape != (2, time, self.vocab_size):
            raise ValueError(f"{model_type} gives no logits for each token of the vocabulary")
        moved_BTV = model(input_ids=other_BT).logits
        if _off(moved_BTV[:, :-1], logits_BTV[:, :-1]) > TOLERANCE:
            raise ValueError(f"{model_type} is not causal: it sees tokens that are yet to come")
        if not torch.equal(self(ids_BT), logits_BTV):
            self.body, self.head = model, nn.Identity()
        if failure := self._cache_fails(ids_BT, logits_BTV):
            self.keeps_past = False
            LOG.warning(
                f"transformers' cache of {model_type} can't be used ({failure}): sampling and "
                "streamed evaluation compute every token from all before it"
            )
        for parameter in zeros:
            parameter.zero_()
        self.train()

    def _cache_fails(self, ids_BT: Tensor, logits_BTV: Tensor) -> str | None:
        """What is wrong when it goes on by several tokens, by one and by several, if anything is.

        Whatever their code raises is a finding about it, and is reported as one.
        """
        if self.past_name is None:
            return f"it takes none of the arguments {', '.join(PAST_NAMES)}"
        cache = self.init_cache(len(ids_BT))
        chunks = [chunk for chunk in ids_BT.tensor_split([2, 5, 6], dim=1) if chunk.numel()]
        try:
            parts = [self(chunk, cache) for chunk in chunks]
        except Exception as error:
            return _one_line(error)
        assert isinstance(cache, Past)
        if cache.kept is None:
            return f"its output has no {self.past_name}"
        if any(part.shape[:2] != chunk.shape for part, chunk in zip(parts, chunks, strict=True)):
            return "it mixes the rows of a batch"
        off = _off(torch.cat(parts, dim=1), logits_BTV)
        return f"it is off by {off:.1g} of the largest logit" if off > TOLERANCE else None


class Past(Cache):
    """`kept` is what a model of transformers remembers, in an object of its own making, or the ids
    so far, (B, T). `tensors` shows those in it that have the batch first."""

    def __init__(self, kept: Any = None, pos: int = 0) -> None:
        super().__init__(pos=pos)
        self.keep(kept)

    def keep(self, kept: Any) -> None:
        self.kept = kept
        self.tensors = {name: tensor for name, tensor in _tensors(kept) if tensor.dim() > 1}

    def select(self, rows: Sequence[int] | Tensor) -> Cache:
        index = torch.as_tensor(rows)
        # What the copy finds in `memo` it takes for the copy of what has that identity.
        memo = {
            id(tensor): tensor.index_select(0, index.to(tensor.device))
            for tensor in self.tensors.values()
        }
        return Past(copy.deepcopy(self.kept, memo), self.pos)


class _Unpadded(TorchFunctionMode):
    """Where costs are counted, on the meta device, there are no values. Their attention asks for
    some: is all of the mask true, are all tokens of one sequence? They are."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__bool__ and args[0].is_meta:
            return True
        return func(*args, **(kwargs or {}))


def _tensors(kept: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers and objects, each with the path to it."""
    if isinstance(kept, Tensor):
        yield path, kept
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(kept, dict):
        inner = kept.items()
    elif isinstance(kept, (list, tuple)):
        inner = enumerate(kept)
    elif not isinstance(kept, type):
        inner = getattr(kept, "__dict__", {}).items()
    for name, value in inner:
        yield from _tensors(value, f"{path}.{name}" if path else str(name))


def _build(
    model_type: str, vocab_size: int, block_size: int, config: dict[str, Any]
) -> PreTrainedModel:
    """The model with random weights. Raises ValueError if its configuration can't be."""
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        hint = _nearest(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ValueError(
            f"config.model_type={model_type} is no causal language model of transformers.{hint}"
        )
    config_class = CONFIG_MAPPING[model_type]
    fields = _settings_of(config_class)
    if "vocab_size" not in fields:
        raise ValueError(f"{model_type} is not a model of text alone: it has no vocab_size")
    settings = _defaults(fields) | {"vocab_size": vocab_size}
    # Many types have their own word for what most call hidden_size, and take both.
    aliases = config_class.attribute_map
    limit = aliases.get("max_position_embeddings", "max_position_embeddings")
    if limit in fields:
        settings[limit] = block_size
    for name, value in config.items():
        field = aliases.get(name, name)
        if field in ("vocab_size", limit):
            source = "the data decide it" if field == "vocab_size" else "block_size decides it"
            raise ValueError(f"config.{name} can't be set: {source}")
        if field not in fields and field != "model_type":
            hint = _nearest(name, (*fields, *aliases))
            raise ValueError(f"config.{name}: {model_type} has no such setting.{hint}")
        settings[field] = value
    del settings["model_type"]
    if torch.get_default_device().type == "meta":
        # Where costs are counted, this way through a mixture of experts has shapes without data.
        settings["experts_implementation"] = "batched_mm"
    try:
        return AutoModelForCausalLM.from_config(config_class(**settings))
    except Exception as error:  # mistakes in a configuration show as any kind of exception
        raise ValueError(f"this {model_type} can't be built: {_one_line(error)}") from error


def _settings_of(config_class: type[PreTrainedConfig]) -> dict[str, dataclasses.Field[Any]]:
    """A type's own settings: those that shape the model."""
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = (field for field in dataclasses.fields(config_class) if field.name not in common)
    return {field.name: field for field in own}


def _defaults(fields: dict[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    """Where the zoo's defaults are not those of transformers."""
    defaults: dict[str, Any] = {}
    for name, field in fields.items():
        if "drop" in name and isinstance(field.default, float):
            defaults[name] = 0.0
        if name in ("pad_token_id", "bos_token_id", "eos_token_id") and "None" in str(field.type):
            defaults[name] = None
    # Else BERT and its kind see both sides, and RWKV divides its weights in place to evaluate.
    # A cache is made where one is asked for.
    ours = {"is_decoder": True, "rescale_every": 0, "use_cache": False}
    return defaults | {name: value for name, value in ours.items() if name in fields}


def _off(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest number."""
    if not expected.numel():
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def _one_line(error: Exception | None) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _nearest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def _hold_all_parameters(parts: list[nn.Module], model: nn.Module) -> bool:
    held = {id(parameter) for part in parts for parameter in part.parameters()}
    return all(id(parameter) in held for parameter in model.parameters())
