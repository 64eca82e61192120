"""The table of transformers' types that `model=hf` can train, tried one by one.

python -m docs.transformers_types            writes docs/transformers.md, in some minutes
python -m docs.transformers_types gpt2 bert  prints the lines of these types

Each is built at a tiny size, with random weights. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import sys
import textwrap
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING

from docs.import_graph import ROOT
from zoo.gpt import GPT
from zoo.hugging_face import HuggingFace
from zoo.language_model import LanguageModel

PAGE = ROOT / "docs/transformers.md"
VOCABULARY, BLOCK, ROWS, STEPS, RATE = 65, 32, 8, 20, 1e-2
# Decoders of every kind; encoders that transformers lists as causal language models, such as bert;
# decoders of encoder-decoders, such as bart; and types that are neither.
TYPES = [
    *("apertus", "arcee", "bamba", "bart", "bert", "biogpt", "bitnet", "bloom", "cohere2"),
    *("ctrl", "deepseek_v3", "electra", "ernie4_5", "exaone4", "falcon", "falcon_mamba"),
    *("gemma2", "gemma3_text", "glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss"),
    *("granitemoehybrid", "helium", "jamba", "jetmoe", "lfm2", "llama", "llama4_text", "mamba"),
    *("mistral", "mixtral", "modernbert-decoder", "mpt", "nemotron", "olmo2", "olmo3", "olmoe"),
    *("openai-gpt", "opt", "persimmon", "phi3", "qwen2", "qwen3", "qwen3_moe", "rwkv", "t5"),
]
# Set where a type has a setting of the name; the rest are transformers' defaults.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "lru_width", "dff"), 32),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size"), 16),
    **dict.fromkeys(("num_local_experts", "n_routed_experts", "num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "shared_expert_intermediate_size"), 16),
    "d_inner": 64,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "sliding_window": 8,
}
HEAD = """# Types of transformers

`model=hf model.config.model_type=TYPE` trains any type of transformers that is a causal language
model of text. This table of {count} is made by `python -m docs.transformers_types`: each at a width
of 32, with random weights, in fp32 on one thread of a CPU. Made with transformers {version} and
torch {torch}.

- **trains**: {steps} steps of Adam on one batch lower the loss by a fifth at least.
- **causal**: no logits depend on later tokens. A type that looks ahead is refused.
- **cached = full**: with its cache, chunks and single tokens give the logits of one call over all
  of them. If not, all earlier tokens are computed again for each new one, which is right and slow,
  and a line says so.
- **step**: the CPU time of a training step, relative to that of `model=gpt` at this width and
  depth, measured in alternation. At this size it tells what a type's code costs, not what its
  arithmetic does.
- What can't be built is refused, in the words that are given. Some types only lack sizes that fit
  together at this width.

| type | trains | causal | cached = full | step |
|---|---|---|---|---:|
"""


def main(types: list[str]) -> int:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    lines = []
    for name in types or TYPES:
        lines.append(line(name))
        print(lines[-1], flush=True)
    if not types:
        version = transformers.__version__
        PAGE.write_text(head(version, torch.__version__) + "\n".join(lines) + "\n", "utf-8")
    return 0


def head(version: str, torch_version: str) -> str:
    return HEAD.format(count=len(TYPES), version=version, torch=torch_version, steps=STEPS)


def line(model_type: str) -> str:
    """The type's line of the table."""
    torch.manual_seed(0)
    try:
        model = HuggingFace(VOCABULARY, BLOCK, {"model_type": model_type, **sizes(model_type)})
        trains, step = trained(model)
        cells = [trains, "yes", "yes" if model.uses_cache else "no", step]
    except (ValueError, RuntimeError) as error:
        words = textwrap.shorten(str(error), 150, placeholder=" …").replace("|", "\\|")
        causal = "no" if "is not causal" in words else "–"
        cells = [f"refused: {words}", causal, "–", "–"]
    return f"| {' | '.join([f'`{model_type}`', *cells])} |"


def sizes(model_type: str) -> dict[str, Any]:
    """The tiny sizes that the type has settings for."""
    if model_type not in CONFIG_MAPPING:
        return {}
    known = {field.name for field in dataclasses.fields(CONFIG_MAPPING[model_type])}
    return {name: size for name, size in SIZES.items() if name in known}


def trained(model: LanguageModel) -> tuple[str, str]:
    """Whether it trains, and the time of its step."""
    draw = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(VOCABULARY, (ROWS, BLOCK + 1), generator=draw)
    step = stepper(model, ids_BT)
    ours = stepper(GPT(VOCABULARY, BLOCK, n_layer=2, n_head=4, n_embd=32), ids_BT)
    losses, ratios = [step()[0]], []
    for _ in range(STEPS):
        loss, seconds = step()
        losses.append(loss)
        ratios.append(seconds / ours()[1])
    first, last = losses[0], losses[-1]
    trains = "yes" if last < 0.8 * first else f"no: {first:.2f} to {last:.2f} nats"
    return trains, f"{statistics.median(ratios):.1f}"


def stepper(model: LanguageModel, ids_BT: Tensor) -> Callable[[], tuple[float, float]]:
    """Takes a step of Adam; gives the loss before it, and the CPU time it took."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)

    def step() -> tuple[float, float]:
        begun = process_time()
        logits_BTV = model(ids_BT[:, :-1])
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item(), process_time() - begun

    return step


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
