"""What is recorded: command lines, each case in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .mistakes import OF_RUNS, OF_TOOLS, OF_TRAINING


@dataclass(frozen=True)
class Case:
    """Commands that run one after another in one folder, each as in `python -m harness.COMMAND`.

    needs: the case whose folder is copied first. fields_only: the clock decides the numbers.
    real: as processes of their own, not as forks of one that has imported torch.
    """

    name: str
    commands: tuple[str, ...]
    needs: str | None = None
    fields_only: bool = False
    real: bool = False

    @property
    def is_mistake(self) -> bool:
        return self.name.startswith("mistake/")


SMALL = (
    "train data=text data.path=../text.txt device=cpu precision=fp32 train.steps=8 "
    "train.batch_size=2 train.seq_len=16 eval.every=4 eval.sample_tokens=8 checkpoint.every=3 "
    "observe.every=4 run_dir=run"
)
TRANSFORMER = "model.n_layer=2 model.n_head=2 model.n_embd=16"
GROUPED = "model.n_layer=2 model.n_head=4 model.n_embd=16"
RECURRENT = "model.n_embd=12 model.n_hidden=16"
MLP = "model=mlp model.context=8 model.n_embd=8 model.n_hidden=24"
WAVENET = (
    "model=wavenet model.n_embd=8 model.channels_residual=8 model.channels_gate=8 "
    "model.channels_skip=8 model.kernel_sizes=[2,2,2] model.dilations=[1,2,4] model.n_stack=1"
)
GPT = f"model=gpt {TRANSFORMER}"
HF = "model=hf model.config.hidden_size=16 model.config.num_hidden_layers=2"
# What makes each model small; one that is not named here is trained as its file has it.
SIZES = {
    "bigram": "",
    "bow": "model.n_embd=8 model.n_hidden=24",
    **dict.fromkeys(("gpt", "gpt1", "gpt3", "gpt_modern", "ladder"), TRANSFORMER),
    "gpt_moe": f"{TRANSFORMER} model.n_expert=4 model.n_inner=16",
    **dict.fromkeys(("llama", "mistral"), GROUPED),
    **dict.fromkeys(("rnn", "gru", "lstm"), RECURRENT),
    "hf": f"{HF.removeprefix('model=hf ')} +model.config.n_head=2",
    "mlp": MLP.removeprefix("model=mlp "),
    "wavenet": WAVENET.removeprefix("model=wavenet "),
    "perceiver_ar": "model.n_latent=8 model.n_layer=1 model.n_head=2 model.n_embd=16",
    "spacebyte": (
        "tokenizer=bytes model.n_layer_global=1 model.n_head_global=2 model.n_embd_global=16 "
        "model.n_layer_local=2 model.n_head_local=2 model.n_embd_local=8"
    ),
    "hnet": (
        "model.n_layer_main=1 model.n_head_main=2 model.n_embd_main=24 model.n_layer_encoder=1 "
        "model.n_layer_decoder=1 model.n_embd=16 model.n_head_channels=16 model.n_state=8"
    ),
    "megabyte": (
        "model.n_layer_global=1 model.n_head_global=2 model.n_embd_global=32 "
        "model.n_layer_local=1 model.n_head_local=2 model.n_embd_local=16"
    ),
}
MODEL_VARIANTS = {
    "hf_llama": (
        f"{HF} model.config.model_type=llama +model.config.num_attention_heads=4 "
        "+model.config.num_key_value_heads=2 +model.config.intermediate_size=24"
    ),
    "bigram_factored": "model=bigram model.n_embd=4",
    "gpt_dropout": f"{GPT} model.dropout=0.2 model.stochastic_depth=0.2",
    "gpt_swiglu_rotary": f"{GPT} model.activation=swiglu model.rotary_theta=10000.0",
    "ladder_attention_dropout": f"model=ladder {TRANSFORMER} model.attention_dropout=0.2",
    "mlp_direct": f"{MLP} model.direct=true model.norm=layer_norm model.dropout=0.1",
    "wavenet_as_built": (
        f"{WAVENET} model.gate=linear model.skips=mean model.output=one_layer "
        "model.initial_conv=null model.last_residual=true"
    ),
    "megabyte_cross_patch": (
        f"model=megabyte {SIZES['megabyte']} model.cross_patch=2 model.kernel_sizes=[3]"
    ),
    "lstm_dropout": f"model=lstm {RECURRENT} model.dropout=0.2 model.widen_dropout=true",
}
# Each with a schedule, so that every one of both is met.
OPTIMIZERS = {
    "adam": "schedule=linear schedule.warmup=2",
    "adamw": "schedule=cosine schedule.warmup=0.25 schedule.end=7",
    "lion": "schedule=inverse_sqrt schedule.warmup=3",
    "muon": "schedule=stable_decay schedule.decay=0.5",
    "rmsprop": "schedule=constant schedule.warmup=2 schedule.warmup_start=0.5",
    "sgd": "schedule=step schedule.at=[3,0.75] schedule.factor=0.5",
}
TOKENIZERS = {
    "char": "tokenizer=char",
    "bytes": "tokenizer=bytes",
    "bpe": "tokenizer=bpe tokenizer.vocab_size=300",
    "sentencepiece": "tokenizer=sentencepiece tokenizer.vocab_size=320",
    "unigram": "tokenizer=sentencepiece tokenizer.vocab_size=320 tokenizer.model_type=unigram",
    "whole_file": "tokenizer=sentencepiece tokenizer.vocab_size=320 tokenizer.whole_file=true",
    "p50k": "tokenizer=p50k",
    "gpt2": "tokenizer=gpt2",
    "cl100k": "tokenizer=cl100k",
    "tiktoken": "tokenizer=tiktoken tokenizer.encoding=p50k_edit",
    "bert": "tokenizer=bert",
    "hf": "tokenizer=hf tokenizer.name=google-bert/bert-base-uncased",
}
MLP_NORM = f"{MLP} model.norm=batch_norm model.bias=false"
WAVENET_NORM = f"{WAVENET} model.norm=batch_norm"
TRAINING = {
    **{
        f"batch_norm/{mode}_{name}": (
            f"{norm} train.batch_norm={mode} train.batch_norm_samples=64 "
            "train.batch_norm_frozen=0.5"
        )
        for mode in ("moving", "precise", "frozen", "batch")
        for name, norm in (("mlp", MLP_NORM), ("wavenet", WAVENET_NORM))
    },
    **{
        f"budget/{currency}": f"{GPT} train.steps=null train.{currency}={amount}"
        for currency, amount in {"tokens": 200, "bytes": 250, "flops": 9000000}.items()
    },
    **{
        f"init/{init}": f"{GPT} init={init} zero_residual={residual}"
        for init, residual in {
            "default": "true",
            "kaiming": "false",
            "xavier": "false",
            "gpt2": "true",
            "truncated_normal": "false",
        }.items()
    },
    "init/kaiming_wavenet": f"{WAVENET} init=kaiming zero_residual=true",
    "init/xavier_lstm": f"model=lstm {RECURRENT} init=xavier",
    "step/ema": f"{GPT} train.ema=0.9",
    "step/label_smoothing": f"{GPT} train.label_smoothing=0.1",
    "step/max_norm": f"{MLP} train.max_norm=0.5",
    "step/accumulate": f"{GPT} train.batch_size=4 train.accumulate=2",
    "step/not_accumulated": f"{GPT} train.batch_size=8",
    "step/clip": f"{GPT} train.clip=0.1",
    "step/no_clip": f"{GPT} train.clip=null",
    "step/last": f"{MLP} train.positions=last",
    "step/last_accumulated": f"{GPT} train.positions=last train.accumulate=2",
    "step/bf16": f"{GPT} precision=bf16",
    "step/fp16": f"{GPT} precision=fp16",
    "step/auto": f"{GPT} precision=auto",
    "step/lr_of": f"{MLP} optimizer.lr_of={{token_embedding:0.1,head:0.01}}",
    "step/lr_of_sgd": f"{MLP} optimizer=sgd optimizer.lr_of={{head:0.01}} optimizer.nesterov=false",
    "step/decay_embeddings": f"{GPT} optimizer.decay_embeddings=true optimizer.weight_decay=0.5",
    "step/not_fused": f"{GPT} optimizer.fused=false",
    "step/adamax": f"{GPT} optimizer=adam optimizer._target_=torch.optim.Adamax ~optimizer.fused",
    "step/all_at_once": (
        f"{MLP_NORM} optimizer=muon schedule=linear train.ema=0.5 train.max_norm=1 train.clip=0.5 "
        "train.accumulate=3 train.label_smoothing=0.1 train.batch_norm=precise "
        "train.batch_norm_samples=64 precision=bf16 model.dropout=0.1"
    ),
    "step/seed": f"{GPT} seed=1",
    "eval/stride": f"{GPT} eval.stride=3 eval.batch_size=5",
    "eval/prompt": f"{GPT} eval.prompt=bottle eval.sample_tokens=20",
    "eval/no_sample": f"{GPT} eval.sample_tokens=0 eval.every=3",
    "eval/no_test": f"{GPT} data.split=[0.9,0.1,0]",
    "eval/train_only": f"{GPT} data.split=[1,0,0]",
    "observe/off": f"{GPT} observe=off observe.every=null",
    "observe/full": f"{GPT} observe=full observe.every=4",
    "observe/full_wavenet": f"{WAVENET_NORM} observe=full observe.every=4",
    "observe/full_lstm": f"model=lstm {RECURRENT} observe=full observe.every=4",
    "observe/full_hf": f"model=hf {SIZES['hf']} observe=full observe.every=4",
    "end/patience": f"{GPT} optimizer.lr=0.0 train.patience=1 eval.every=2",
    "end/non_finite": f"{MLP} optimizer=sgd optimizer.lr=1e38 train.clip=null",
    "end/non_finite_skipped": (
        f"{MLP} optimizer=sgd optimizer.lr=1e38 train.clip=null train.on_non_finite=skip "
        "eval.sample_tokens=0"
    ),
    "end/non_finite_too_often": (
        f"{MLP} optimizer=sgd optimizer.lr=1e38 train.clip=null train.on_non_finite=skip "
        "eval.sample_tokens=0 train.steps=40"
    ),
    "logger/tensorboard": f"{GPT} logger=tensorboard",
}
SWEEP = SMALL.replace("train ", "train -m ", 1).replace(" run_dir=run", " hydra.sweep.dir=sweep")
RESUME = f"{SMALL} {GPT} schedule=constant train.ema=0.9 model.dropout=0.1"
SEQUENCES = {
    "data/tiny_shakespeare": (
        SMALL.replace("data=text data.path=../text.txt", "data=tiny_shakespeare model=bigram"),
    ),
    "resume/whole": (f"{RESUME} train.steps=10",),
    "resume/cut": (f"{RESUME} train.steps=5", "train run_dir=run resume=true train.steps=10"),
    "resume/finished": (f"{RESUME} train.steps=3", "train run_dir=run resume=true"),
    "resume/fp16": (
        f"{SMALL} {GPT} precision=fp16 train.steps=4 schedule=constant",
        "train run_dir=run resume=true train.steps=6",
    ),
    "sweep/two_jobs": (f"{SWEEP} {GPT} seed=0,1",),
    "sweep/a_bad_job": (
        f"{SWEEP} model=bigram,mlp train.seq_len=8 train.max_norm=1",
        "compare sweep --runs-csv runs.csv",
    ),
    "sweep/compared": (
        f"{SWEEP} model=gpt,ladder {TRANSFORMER} seed=0,1",
        "compare sweep --csv table.csv --runs-csv runs.csv --markdown table.md",
        "compare sweep --out report.html",
        "compare sweep/0-gpt-char-s0 sweep/2-ladder-char-s0",
    ),
}
# Of a trained run: the case that trains it, and the commands.
TOOLS = {
    "evaluate/gpt": (
        "model/gpt",
        "evaluate run --json",
        "evaluate run",
        "evaluate run --split val --json",
        "evaluate run --split train --json",
        "evaluate run --stride 1 --json",
        "evaluate run --stride 16 --batch-size 3 --json",
        "evaluate run --checkpoint latest --json",
        "evaluate run --precision bf16 --json",
    ),
    "evaluate/best": ("step/ema", "evaluate run --json", "evaluate run --checkpoint latest --json"),
    "evaluate/batch_norm": ("batch_norm/batch_mlp", "evaluate run --json"),
    "evaluate/calibration": ("model/gpt", "evaluate run --calibration --json"),
    "evaluate/strided": ("model/megabyte", "evaluate run --strided-inference --stride 8 --json"),
    "evaluate/streaming": ("model/lstm", "evaluate run --split val --json"),
    "evaluate/lossy": ("tokenizer/bert", "evaluate run --json"),
    "sample/gpt": (
        "model/gpt",
        "sample run --tokens 40",
        "sample run --tokens 40 --seed 3 --temperature 0.7",
        "sample run --tokens 20 --temperature 0",
        "sample run --tokens 20 --top-k 5",
        "sample run --tokens 20 --top-k 999",
        "sample run --tokens 20 --top-p 0.8",
        "sample run --tokens 20 --min-p 0.05",
        "sample run --tokens 20 --repetition-penalty 1.5",
        "sample run --tokens 20 --num-samples 3 --prompt 'green bottles'",
        "sample run --tokens 20 --beams 3 --num-samples 2",
        "sample run --tokens 20 --beams 3 --stop e --length-penalty 0.6",
        "sample run --tokens 40 --stop e",
        "sample run --tokens 20 --mask-unused --checkpoint latest",
        "sample run --tokens 20 --prompt-file ../text.txt",
    ),
    "sample/bytes": (
        "tokenizer/bytes",
        "sample run --tokens 40 --seed 1",
        "sample run --tokens 20 --beams 2 --mask-unused",
    ),
    "sample/sentencepiece": ("tokenizer/sentencepiece", "sample run --tokens 20"),
    "sample/bert": ("tokenizer/bert", "sample run --tokens 10 --mask-unused"),
    **{
        f"sample/{name}": (f"model/{name}", "sample run --tokens 30", "sample run --beams 2")
        for name in ("lstm", "megabyte", "wavenet", "mlp", "perceiver_ar", "hf")
    },
    "inside": ("observe/full", "inside run --out inside.svg", "inside run --out inside.png"),
    "compare/one": ("model/gpt", "compare run --csv table.csv --runs-csv runs.csv"),
    "resume/less": ("model/gpt", "train run_dir=run resume=true train.steps=3"),
    "dashboard": ("model/gpt", "dashboard run --json"),
}
PROBE = SMALL.removeprefix("train ").replace(" run_dir=run", "")
OTHERS = {
    "overfit/learnt": (f"overfit {PROBE} {GPT} train.steps=80 optimizer.lr=0.03",),
    "overfit/not_learnt": (f"overfit {PROBE} model=bigram train.steps=10",),
    "lr_range/found": (f"lr_range {PROBE} {GPT} train.steps=60",),
    "lr_range/several": (f"lr_range {PROBE} {MLP} train.steps=30 optimizer.lr_of={{head:0.01}}",),
    "schedule/drawn": (
        *(f"schedule schedule={name}" for name in ("constant", "cosine", "inverse_sqrt")),
        *(f"schedule schedule={name}" for name in ("linear", "stable_decay", "step")),
    ),
    "prepare": (
        "prepare data=text data.path=../text.txt tokenizer=bpe tokenizer.vocab_size=300",
        "prepare data=tiny_shakespeare tokenizer=bytes",
        "prepare data=python_docs tokenizer=char",
    ),
    "help": ("train --help",),
}
CLOCK = {
    "budget/seconds": (f"{SMALL} {GPT} train.steps=null train.seconds=0.2",),
    "bench/bigram": (f"bench {PROBE} model=bigram",),
    "bench/checkpoint": (f"bench --checkpoint {PROBE} model=bigram",),
}


def all_cases(checkout: Path) -> list[Case]:
    """Those for every model, and so on, that the checkout's conf/ has."""
    conf = checkout / "conf"

    def names(group: str) -> list[str]:
        return sorted(path.stem for path in (conf / group).glob("*.yaml"))

    def of_files() -> Iterator[Case]:
        for name in names("model"):
            yield _training(f"model/{name}", f"model={name} {SIZES.get(name, '')}")
        for name in names("optimizer"):
            more = OPTIMIZERS.get(name, "")
            yield _training(f"optimizer/{name}", f"{GPT} optimizer={name} {more} train.steps=12")
        for name in names("schedule"):
            yield _training(f"schedule/{name}", f"{MLP} schedule={name} train.steps=12")
        for name in names("tokenizer"):
            if name not in TOKENIZERS:
                yield _training(f"tokenizer/{name}", f"{TINY} tokenizer={name}")
        for name in names("experiment"):
            yield Case(f"experiment/{name}", (f"train --cfg job experiment={name}",))

    return [
        *of_files(),
        *(_training(f"tokenizer/{name}", f"{TINY} {more}") for name, more in TOKENIZERS.items()),
        *(_training(f"model/{name}", more) for name, more in MODEL_VARIANTS.items()),
        *(_training(name, more) for name, more in TRAINING.items()),
        *(Case(name, commands) for name, commands in (SEQUENCES | OTHERS).items()),
        Case("bench/list", ("bench --list",)),
        *(Case(name, commands, fields_only=True) for name, commands in CLOCK.items()),
        *(Case(name, rest, needs=needs) for name, (needs, *rest) in TOOLS.items()),
        *(Case(f"mistake/{line}", (f"train {line}",)) for line in OF_TRAINING),
        *(Case(f"mistake/{line}", (line,)) for line in OF_TOOLS),
        *(Case(f"mistake/{line}", (line,), needs="model/gpt") for line in OF_RUNS),
        *(Case(f"real/{name}", lines, real=True) for name, lines in REAL.items()),
    ]


# The vocabularies are large, the model need not be.
TINY = "model=gpt model.n_layer=1 model.n_head=1 model.n_embd=4 eval.every=8 train.steps=3"
# The same by both ways: each has a twin above of which every part must be equal.
REAL = {
    "model/gpt": (f"{SMALL} model=gpt {SIZES['gpt']}",),
    "mistake/train.stepz=3": ("train train.stepz=3",),
}


def _training(name: str, overrides: str) -> Case:
    return Case(name, (f"{SMALL} {overrides}",))
