"""What is tried: bases, and one change of each at a time, as settings of harness.train."""

from __future__ import annotations

from dataclasses import dataclass

SHARED = "precision=bf16 matmul=onednn eval.stride=64"


@dataclass(frozen=True)
class Phase:
    """The batch, rows × tokens, until so much of the budget's tokens is spent."""

    until: float
    rows: int
    time: int


@dataclass(frozen=True)
class Change:
    settings: str = ""
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True)
class Base:
    """tokens: the budget of training. Batches are of 12 rows of 64 characters."""

    settings: str
    tokens: int
    changes: dict[str, Change]


def whole(settings: str) -> str:
    """Muon takes whole matrices, as when these were trained: joint maps are a later choice."""
    return f"{settings} optimizer.per_map=false" if "optimizer=muon" in settings else settings


def _settings(*each: str) -> dict[str, Change]:
    return {settings: Change(whole(settings)) for settings in each}


ROWS, TIME = 12, 64
NONE = {"none": Change()}
BATCHES = {
    "6 rows, twice the steps": Change("", (Phase(1, 6, 64),)),
    "24 rows, half the steps, optimizer.lr=4e-3": Change(
        "train.batch_size=24 optimizer.lr=4e-3", (Phase(1, 24, 64),)
    ),
    "batch warm-up: 6, then 12 rows": Change("", (Phase(0.3, 6, 64), Phase(1, 12, 64))),
    "batch warm-up: 4, 8, then 16 rows": Change(
        "train.batch_size=16", (Phase(0.15, 4, 64), Phase(0.4, 8, 64), Phase(1, 16, 64))
    ),
    "context warm-up: 32, then 64": Change(
        "train.batch_size=24", (Phase(0.4, 24, 32), Phase(1, 12, 64))
    ),
    "context warm-up: 16, 32, then 64": Change(
        "train.batch_size=48", (Phase(0.3, 48, 16), Phase(0.6, 24, 32), Phase(1, 12, 64))
    ),
}
# Pairs of characters have a row each, longer n-grams share as many by a hash.
PAIRS, TRIPLES = "ngrams=2 ngram_rows=4356", "ngrams=3 ngram_rows=16381"
TRANSFORMER = Base(
    "model=gpt_modern optimizer.lr=2e-3",
    250 * ROWS * TIME,
    NONE
    | _settings(
        "optimizer.lr=1e-3",
        "optimizer.lr=4e-3",
        "schedule=linear",
        "schedule=linear optimizer.lr=4e-3",
        "schedule.floor=0",
        "schedule=constant",
        "schedule=stable_decay",
        "schedule=stable_decay schedule.decay=0.5",
        "schedule.warmup=0",
        "schedule.warmup=0.15",
        "train.ema=0.98",
        "schedule=constant train.ema=0.98",
        "zero_residual=true",
        "init=xavier",
        "model.tie_weights=true",
        "model.positions=learned",
        "model.positions=none",
        "model.positions=alibi",
        "model.positions=sinusoidal",
        "model.rotary_theta=100",
        "model.activation=gelu",
        "model.activation=swiglu",
        "model.n_layer=2 model.n_embd=176",
        "optimizer=muon optimizer.lr=3e-3",
        "optimizer=lion optimizer.lr=3e-4",
        "optimizer=lion optimizer.lr=6e-4",
        "optimizer.betas=[0.9,0.95]",
        "optimizer.lr_of={token_embedding:2e-2}",
        "precision=fp32",
    )
    | {
        "bigram embeddings": Change(PAIRS),
        "bigram and trigram embeddings": Change(TRIPLES),
        "value embeddings": Change("trust=[prototypes] model._target_=prototypes.ValueGPT"),
    }
    | BATCHES,
)
ANY = _settings(
    "schedule=linear",
    "schedule=constant",
    "schedule.warmup=0",
    "train.ema=0.98",
    "optimizer.betas=[0.9,0.95]",
    "precision=fp32",
)
WARM_UPS = {name: BATCHES[name] for name in BATCHES if name.startswith(("6", "batch", "context"))}
BASES = {
    "gpt_modern": TRANSFORMER,
    "wavenet": Base(
        "experiment=searched model=wavenet",
        250 * ROWS * TIME,
        NONE
        | ANY
        | _settings(
            "zero_residual=true",
            "optimizer=muon optimizer.lr=3e-3",
            "model.dilations=[1,1,1,1,1]",
        )
        | {"bigram embeddings": Change(PAIRS)}
        | WARM_UPS,
    ),
    "mlp": Base(
        "experiment=searched model=mlp",
        250 * ROWS * TIME,
        NONE
        | ANY
        | _settings("optimizer=muon optimizer.lr=3e-3", "model.activation=relu")
        | {"6 rows, twice the steps": BATCHES["6 rows, twice the steps"]},
    ),
    "lstm": Base(
        "experiment=searched model=lstm",
        250 * ROWS * TIME,
        NONE
        | ANY
        | _settings(
            "optimizer=muon optimizer.lr=1e-2",
            "optimizer.lr=2e-2 model.n_layer=1 model.n_hidden=384",
        )
        | {"bigram embeddings": Change(PAIRS)}
        | WARM_UPS,
    ),
}
# The recipes of half a minute with n-grams of up to four characters, as long as they are.
WIDE = "model.n_layer=1 model.n_hidden=384"
LONGER = {
    "fast_gpt": (
        1000 * ROWS * TIME,
        "experiment=fast_gpt model=gpt_modern optimizer.per_map=false",
    ),
    "cross_the_floor": (1500 * 8 * 128, f"experiment=cross_the_floor model=lstm {WIDE}"),
}
for _name, (_tokens, _recipe) in LONGER.items():
    BASES[_name] = Base(
        f"{_recipe} eval.stride=null",
        _tokens,
        NONE
        | {
            "bigram embeddings": Change(PAIRS),
            "bigram and trigram embeddings": Change(TRIPLES),
            "embeddings of two to four characters": Change("ngrams=4 ngram_rows=16381"),
        },
    )
# Of experiment=compare, as it is there.
MUON = "optimizer=muon optimizer.lr={}"
COMPARED = {
    "gpt": MUON.format("3e-3"),
    "megabyte": MUON.format("3e-3"),
    "lstm": MUON.format("1e-2"),
    "mlp": "model.activation=relu",
    "wavenet": MUON.format("1e-2"),
}
for _model, _own in COMPARED.items():
    BASES[f"compare, {_model}"] = Base(
        f"experiment=searched model={_model} eval.stride=null",
        1000 * ROWS * TIME,
        NONE | _settings("schedule=linear", "schedule=stable_decay schedule.decay=0.5", _own),
    )
