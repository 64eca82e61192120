"""Which types of transformers' causal language models the zoo can train, tried one by one.

    python -m docs.transformers_types            # writes docs/transformers.md, in a minute or two
    python -m docs.transformers_types gpt2 bert  # prints the lines of these types

Each is built at a tiny size, with random weights. Nothing is downloaded.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from zoo.gpt import GPT
from zoo.hugging_face import HuggingFace
from zoo.language_model import LanguageModel

PAGE = Path(__file__).parent / "transformers.md"
VOCABULARY, BLOCK, ROWS = 65, 32, 8
SECONDS = 60  # for one type
# Decoders of each kind, and encoders (bert, …) that transformers lists as causal language models.
TYPES = (
    *(
        "apertus",
        "arcee",
        "bamba",
        "bart",
        "bert",
        "biogpt",
        "bitnet",
        "bloom",
        "codegen",
        "cohere2",
    ),
    *(
        "deepseek_v3",
        "electra",
        "ernie4_5",
        "exaone4",
        "falcon",
        "falcon_h1",
        "gemma2",
        "gemma3_text",
    ),
    *("glm4", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granitemoehybrid"),
    *("helium", "jamba", "jetmoe", "llama", "llama4_text", "mamba", "mamba2", "mistral", "mixtral"),
    *("mpt", "nemotron", "olmo2", "olmoe", "openai-gpt", "opt", "persimmon", "phi3", "qwen3"),
    *("qwen3_moe", "qwen3_next", "recurrent_gemma", "roberta", "rwkv", "smollm3", "stablelm"),
    *("starcoder2", "xglm", "xlnet", "xlstm", "zamba2"),
)
STEPS = 20
# Set where a type has a setting of the name; the rest are transformers' defaults.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "lru_width", "d_inner"), 32
    ),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size"), 16),
    **dict.fromkeys(("num_local_experts", "n_routed_experts", "num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("mamba_d_state", "state_size", "mamba_chunk_size", "chunk_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "shared_expert_intermediate_size"), 16),
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "sliding_window": 8,
}
HEAD = """# Types of transformers

`model=hf model.config.model_type=TYPE` trains any type of transformers that is a causal language
model of text. This table of some is made by `python -m docs.transformers_types`, with transformers
{version} and torch {torch}: each type at a tiny size, with random weights, in fp32 on a CPU.

- **causal**: no logits depend on later tokens. A type that looks ahead is refused.
- **cached = full**: its cache, fed chunks and single tokens, gives the logits of one call over all
  of them. If not, the zoo computes all tokens again for each new one, which is right and slow.
- **trains**: {steps} steps on one batch lower the loss by a fifth at least.
- **step**: the time of a training step, relative to `model=gpt` of the same width and depth. At
  this size it tells what a type's code costs, not what its arithmetic does.
- What can't be built is refused in the words that are given. Some types only lack sizes that fit
  together: they can be trained with sizes of your own.

| type | causal | cached = full | trains | parameters | step |
|---|---|---|---|---:|---:|
"""


def main(types: list[str]) -> int:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    lines = []
    for name in types or [each for each in TYPES if each in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]:
        lines.append(line(name))
        print(lines[-1], flush=True)
    if types:
        return 0
    head = HEAD.format(version=transformers.__version__, torch=torch.__version__, steps=STEPS)
    PAGE.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return 0


def line(model_type: str) -> str:
    """The type's line of the table."""

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"it takes more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(SECONDS)
    try:
        torch.manual_seed(0)
        model = HuggingFace(VOCABULARY, BLOCK, {"model_type": model_type, **sizes(model_type)})
        cells = ["yes", "yes" if model.uses_cache else "no", *tried(model)]
    except (ValueError, TimeoutError, RuntimeError) as error:
        words = " ".join(str(error).split()).replace("|", "\\|")
        causal = "no" if "is not causal" in words else "–"
        cells = [causal, "–", f"refused: {words[:120]}", "–", "–"]
    finally:
        signal.alarm(0)
    return f"| {' | '.join([f'`{model_type}`', *cells])} |"


def sizes(model_type: str) -> dict[str, Any]:
    """The tiny sizes that the type has settings for."""
    if model_type not in CONFIG_MAPPING:
        return {}
    fields = getattr(CONFIG_MAPPING[model_type], "__dataclass_fields__", {})
    return {name: size for name, size in SIZES.items() if name in fields}


def tried(model: LanguageModel) -> Iterator[str]:
    """Whether it trains, its parameters, and the time of its step."""
    ids_BT = torch.randint(
        VOCABULARY, (ROWS, BLOCK + 1), generator=torch.Generator().manual_seed(0)
    )
    step, ours = stepper(model, ids_BT), stepper(reference(), ids_BT)
    first = step()
    times = []
    for _ in range(STEPS):
        one, loss = timed(ours), first
        begun = process_time()
        loss = step()
        times.append((process_time() - begun) / one)
    yield "yes" if loss < 0.8 * first else f"no ({first:.2f} to {loss:.2f} nats)"
    yield f"{sum(parameter.numel() for parameter in model.parameters()):,}"
    yield f"{sorted(times)[len(times) // 2]:.1f}"


def reference() -> GPT:
    return GPT(VOCABULARY, BLOCK, n_layer=2, n_head=4, n_embd=32)


def stepper(model: LanguageModel, ids_BT: torch.Tensor) -> Callable[[], float]:
    """Takes a step of Adam; gives the loss before it."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def step() -> float:
        logits_BTV = model(ids_BT[:, :-1])
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def timed(step: Callable[[], float]) -> float:
    begun = process_time()
    step()
    return process_time() - begun


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
