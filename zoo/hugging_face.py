"""Any causal language model of Hugging Face's transformers, by configuration, with random weights.

Wolf et al. 2020 (arXiv 1910.03771). Nothing is downloaded and no remote code is run. Each model is
tested on a few tokens when it is built. A model that looks ahead is rejected. Its cache is used
only if it gives the same outputs as a call over all tokens; the cache's name depends on the
release.
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
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import SHORT_BF16
from zoo.layers.checks import require_positive
from zoo.roles import LINEAR

# Read when it is imported. Left there it would be taken for the user's word.
with patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
    from transformers import (
        CONFIG_MAPPING,
        AutoModelForCausalLM,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LOG = logging.getLogger(__name__)

# Types without positions: their state has a fixed size and continues from any chunk.
UNBOUNDED = ("mamba2", "xlstm")
# Names of the cache in the arguments and the output, by model type and release of transformers: the
# first from release 5.24 on, the next two before it.
CACHE_NAMES = ("cache", "past_key_values", "cache_params", "state")
# How many experts a token goes through, by model type.
EXPERTS_OF_A_TOKEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k")
# Smaller differences, relative to the largest logit, are rounding errors in fp32.
TOLERANCE = 1e-4


class HuggingFace(LanguageModel):
    """The model that `config` describes by its model_type and settings of that type.

    block_size becomes the configuration's max_position_embeddings; types in UNBOUNDED have no
    limit. receptive_field is an upper bound: a type with sliding windows in every layer sees less.
    Defaults are those of transformers, except that dropout is 0, that there are no special tokens
    (a padding token would never be trained), and that RWKV does not rescale its weights for
    evaluation.

    `head` maps hidden states to logits. If more than a linear map follows them (a soft cap, a
    scale), the features are the logits and `head` is the identity. If a type's cache fails the
    test, the ids are cached instead and every call computes all tokens, which is slow; the log
    warns of it. Auxiliary losses of a type, such as expert balance, are left out.

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
        self.cache_name = next((name for name in CACHE_NAMES if name in arguments), None)
        self.uses_cache = self.cache_name is not None
        self.body: nn.Module = model
        self.head: nn.Module = nn.Identity()
        head, body = model.get_output_embeddings(), model.base_model
        if isinstance(head, nn.Linear):  # also if it stays inside the body
            vars(head)["parameter_roles"] = {"weight": dataclasses.replace(LINEAR, output=True)}
        is_linear = isinstance(head, nn.Linear) and body is not model
        if is_linear and _contain_all_parameters([body, head], model):
            self.body, self.head = body, head
        if any(parameter.is_meta for parameter in self.parameters()):  # XLNet has some that are not
            _require_countable(self, block_size, config)
        else:
            self._test(model, model_type, block_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        if cache is None:
            return self._run(ids_BT)[0]
        assert isinstance(cache, ObjectCache)
        if self.uses_cache:
            x_BTC, state = self._run(ids_BT, cache.state, use_cache=True)
            cache.store(state)
            return x_BTC
        seen_BT = ids_BT if cache.state is None else torch.cat([cache.state, ids_BT], dim=1)
        cache.store(seen_BT)
        return self._run(seen_BT)[0][:, past:]

    def init_cache(self, batch_size: int) -> Cache:
        return ObjectCache()

    @property
    def idle_parameters(self) -> int:
        """Of the experts that a token does not go through, where the type says how many it does."""
        config: Any = self.body.config
        known = (getattr(config, name, None) for name in EXPERTS_OF_A_TOKEN)
        chosen = next((count for count in known if isinstance(count, int)), None)
        weights = [
            weight
            for module in self.body.modules()
            if type(module).__name__.endswith("Experts")
            for weight in module.parameters(recurse=False)
        ]
        if chosen is None:
            return 0
        return sum(each.numel() // len(each) * max(0, len(each) - chosen) for each in weights)

    def _run(
        self, ids_BT: Tensor, state: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        options: dict[str, Any] = {}
        if self.cache_name is not None:
            options = {"use_cache": use_cache, self.cache_name: state}
        meta = _TrueOnMeta() if ids_BT.is_meta else contextlib.nullcontext()
        with meta, _fast_attention(ids_BT):
            output = self.body(input_ids=ids_BT, **options)
        features_BTC = output["logits" if "logits" in output else "last_hidden_state"]
        return features_BTC, output.get(self.cache_name) if use_cache else None

    @torch.no_grad()
    def _test(self, model: nn.Module, model_type: str, block_size: int) -> None:
        """Test whether the model takes a full window and is causal, the head is all that follows,
        and the cache is right."""
        self.eval()
        # Zero weights would hide the paths through them.
        zeros = [parameter for parameter in self.parameters() if not parameter.any()]
        generator = torch.Generator(next(self.parameters()).device).manual_seed(0)
        for parameter in zeros:
            parameter.normal_(std=0.02, generator=generator)
        time = min(8, self.block_size or 8)
        ids_BT = torch.arange(2 * time, device=generator.device).view(2, time) % self.vocab_size
        other_BT = ids_BT.clone()
        other_BT[:, -1] = (other_BT[:, -1] + 1) % self.vocab_size
        # Of ids that are not padding, if there is any: with it, some types have fewer positions.
        window_BT = ids_BT.new_tensor([[0], [self.vocab_size - 1]]).expand(2, block_size)
        for each_BT in (window_BT, ids_BT):
            try:
                logits_BTV = model(input_ids=each_BT).logits
            except Exception as error:  # as in _build
                raise ValueError(
                    f"this {model_type} can't run on {each_BT.shape[1]} tokens: {_one_line(error)}"
                ) from error
            if logits_BTV.shape != (*each_BT.shape, self.vocab_size):
                raise ValueError(f"{model_type} gives no logits for each token of the vocabulary")
        moved_BTV = model(input_ids=other_BT).logits
        if _relative_error(moved_BTV[:, :-1], logits_BTV[:, :-1]) > TOLERANCE:
            raise ValueError(f"{model_type} is not causal: its logits depend on later tokens")
        if not torch.equal(self(ids_BT), logits_BTV):
            self.body, self.head = model, nn.Identity()
        if failure := self._cache_fails(ids_BT, logits_BTV):
            self.uses_cache = False
            LOG.warning(
                f"transformers' cache of {model_type} can't be used ({failure}): sampling and "
                "streamed evaluation compute all earlier tokens again for each token"
            )
        for parameter in zeros:
            parameter.zero_()
        self.train()

    def _cache_fails(self, ids_BT: Tensor, logits_BTV: Tensor) -> str | None:
        """The error of the cache in a run over chunks of several tokens and of one; None if it
        works. Any exception counts as an error of the cache."""
        if self.cache_name is None:
            return f"it takes none of the arguments {', '.join(CACHE_NAMES)}"
        cache = self.init_cache(len(ids_BT))
        chunks = [chunk for chunk in ids_BT.tensor_split([2, 5, 6], dim=1) if chunk.numel()]
        try:
            parts = [self(chunk, cache) for chunk in chunks]
        except Exception as error:
            return _one_line(error)
        assert isinstance(cache, ObjectCache)
        if cache.state is None:
            return f"its output has no {self.cache_name}"
        if any(part.shape[:2] != chunk.shape for part, chunk in zip(parts, chunks, strict=True)):
            return "it mixes the rows of a batch"
        deviation = _relative_error(torch.cat(parts, dim=1), logits_BTV)
        return f"its relative error is {deviation:.1g}" if deviation > TOLERANCE else None


_COUNTABLE: set[str] = set()  # what this process has tried: a model is built several times


def _require_countable(model: HuggingFace, block_size: int, config: dict[str, Any]) -> None:
    """Raises ValueError if the model can't run on a full window on the meta device, where costs are
    counted."""
    key = repr((block_size, config))
    if key in _COUNTABLE:
        return
    ids_BT = torch.zeros(1, block_size, dtype=torch.int64, device="meta")
    try:
        model(ids_BT).sum().backward()
    except Exception as error:  # as in _build
        raise ValueError(
            f"this {config['model_type']} can't run on {block_size} tokens, or its costs can't be "
            f"counted: {_one_line(error)}"
        ) from error
    model.zero_grad()
    _COUNTABLE.add(key)


def _fast_attention(ids_BT: Tensor) -> contextlib.AbstractContextManager[None]:
    """In bf16 on a CPU, with few keys, torch's fused attention takes longer than its parts, as in
    `zoo.layers.attention.attend`."""
    slow = ids_BT.is_cpu and torch.is_autocast_enabled("cpu") and ids_BT.shape[1] <= SHORT_BF16
    return sdpa_kernel(SDPBackend.MATH) if slow else contextlib.nullcontext()


class ObjectCache(Cache):
    """A cache around `state`: a cache object of transformers, or the ids so far, (B, T). `tensors`
    are the state's tensors with a batch axis."""

    def __init__(self, state: Any = None, pos: int = 0) -> None:
        super().__init__(pos=pos)
        self.store(state)

    def store(self, state: Any) -> None:
        self.state = state
        self.tensors = {name: tensor for name, tensor in _tensors(state) if tensor.dim() > 1}

    def select(self, rows: Sequence[int] | Tensor) -> Cache:
        index = torch.as_tensor(rows)
        # deepcopy takes the copies of these tensors from `memo`.
        memo = {
            id(tensor): tensor.index_select(0, index.to(tensor.device))
            for tensor in self.tensors.values()
        }
        return ObjectCache(copy.deepcopy(self.state, memo), self.pos)


class _TrueOnMeta(TorchFunctionMode):
    """Makes `bool(tensor)` true on the meta device, where tensors have no values. The attention of
    transformers asks whether the whole mask is true and all tokens are of one sequence."""

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


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested containers and objects, each with the path to it."""
    if isinstance(state, Tensor):
        yield path, state
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(state, dict):
        inner = state.items()
    elif isinstance(state, (list, tuple)):
        inner = enumerate(state)
    elif not isinstance(state, type):
        inner = getattr(state, "__dict__", {}).items()
    for name, value in inner:
        yield from _tensors(value, f"{path}.{name}" if path else str(name))


def _build(
    model_type: str, vocab_size: int, block_size: int, config: dict[str, Any]
) -> PreTrainedModel:
    """The model with random weights. Raises ValueError for an invalid configuration."""
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        hint = _nearest(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        raise ValueError(
            f"config.model_type={model_type} is not a causal language model of transformers.{hint}"
        )
    config_class = CONFIG_MAPPING[model_type]
    fields = _settings_of(config_class)
    if "vocab_size" not in fields:
        raise ValueError(f"{model_type} is not a model of text alone: it has no vocab_size")
    settings = _defaults(fields) | {"vocab_size": vocab_size}
    # Many types have another name for hidden_size, and accept both.
    aliases = config_class.attribute_map
    limit = aliases.get("max_position_embeddings", "max_position_embeddings")
    if limit in fields:
        settings[limit] = block_size
    for name, value in config.items():
        field = name if name in fields else aliases.get(name, name)
        if field in ("vocab_size", limit):
            source = "the data" if field == "vocab_size" else "block_size"
            raise ValueError(f"config.{name} can't be set: it follows from {source}")
        if field not in fields and field != "model_type":
            hint = _nearest(name, (*fields, *aliases))
            raise ValueError(f"config.{name}: {model_type} has no such setting.{hint}")
        settings[field] = value
    del settings["model_type"]
    if torch.get_default_device().type == "meta":
        # This implementation of experts works on the meta device, where costs are counted.
        settings["experts_implementation"] = "batched_mm"
    try:
        return AutoModelForCausalLM.from_config(config_class(**settings))
    except Exception as error:  # a wrong configuration may raise any exception
        raise ValueError(f"this {model_type} can't be built: {_one_line(error)}") from error


def _settings_of(config_class: type[PreTrainedConfig]) -> dict[str, dataclasses.Field[Any]]:
    """The settings of the model's architecture."""
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = (field for field in dataclasses.fields(config_class) if field.name not in common)
    return {field.name: field for field in own}


def _defaults(fields: dict[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    """The zoo's defaults that differ from those of transformers."""
    defaults: dict[str, Any] = {}
    for name, field in fields.items():
        if "drop" in name and isinstance(field.default, float):
            defaults[name] = 0.0
        if name in ("pad_token_id", "bos_token_id", "eos_token_id") and "None" in str(field.type):
            defaults[name] = None
    # Else BERT and its kind look ahead, and RWKV rescales its weights in place for evaluation.
    # A cache is made only on request.
    ours = {"is_decoder": True, "rescale_every": 0, "use_cache": False}
    return defaults | {name: value for name, value in ours.items() if name in fields}


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    if not expected.numel():
        return 0.0
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def _one_line(error: Exception | None) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _nearest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def _contain_all_parameters(parts: list[nn.Module], model: nn.Module) -> bool:
    contained = {id(parameter) for part in parts for parameter in part.parameters()}
    return all(id(parameter) in contained for parameter in model.parameters())
