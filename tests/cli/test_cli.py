"""A mistake on the command line ends in one clear line, exit code 2, and leaves nothing behind."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.paths import CONF
from harness.training import loop
from tests.conftest import Ended
from tests.waiting import GUARD

Command = Callable[..., Ended]
Process = Callable[..., subprocess.CompletedProcess[str]]
# Command lines of harness.train, and what the one line must say.
BAD = {
    # keys
    "foo=3": "there is no setting foo",
    "+foo=3": "there is no setting foo",
    "++foo.bar=3": "there is no setting foo",
    "~foo": "there is no setting foo",
    "train.stepz=3": "there is no setting train.stepz. Did you mean train.steps?",
    "+train.stepz=3": "there is no setting train.stepz. Did you mean train.steps?",
    "stepz=3": "Did you mean train.steps?",
    "train.zzzz=3": "there is no setting train.zzzz. train has: ",
    "mdoel=gpt": "there is no setting mdoel. Did you mean model?",
    "model.n_layr=3": "there is no setting model.n_layr. Did you mean model.n_layer?",
    "+model.n_layr=3": "model.n_layr: GPT does not have it. Did you mean n_layer?",
    "model=bigram model.n_layer=3": "there is no setting model.n_layer",
    # A hint is a setting that the chosen model has, not one of any other.
    "model=gru model.norm=rms_norm": "model.norm. model has: _target_, n_layer, n_embd, n_hidden, ",
    "experiment=seed_mlp model.n_hiden=3": "model.n_hiden. Did you mean model.n_hidden?",
    "schedule=step schedule.en=3": "there is no setting schedule.en. schedule has: ",
    "train.steps.x=3": "there is no setting train.steps.x",
    "model@other=gpt": "there is no setting model@other",
    "+seed=3": "seed has a value already: write seed=… without the +",
    "+model=gpt": "model has a value already: write model=… without the +",
    "~seed": "seed has no value; give one: seed=…",
    "~model": "model has no value; give one: model=… (one of bigram, ",
    "~train": "train",
    "model.vocab_size=9": "there is no setting model.vocab_size",
    "+model.vocab_size=9": "model.vocab_size can't be set: it follows from the data",
    # names
    "model=nope": "model=nope does not exist. Choices: bigram, ",
    "model=gtp": "model=gtp does not exist. Did you mean gpt?",
    "model=": "model= does not exist. Choices: bigram, ",
    "model=gpt.yaml": "model=gpt.yaml does not exist. Did you mean gpt?",
    "model=../data/text": "model=../data/text does not exist",
    "model=nope tokenizer=nah": "model=nope does not exist",
    "tokenizer=chr": "tokenizer=chr does not exist. Did you mean char?",
    "data=shakespeare": "Did you mean tiny_shakespeare?",
    "experiment=nope": "experiment=nope does not exist.",
    "logger=[nope]": "logger=nope does not exist.",
    "logger=nope": "logger=nope does not exist.",
    "~logger.local": "local",
    "logger=[local,wnadb]": "Did you mean wandb?",
    "logger=wandb logger.wandb.mode=of": "logger.wandb.mode=of should be one of auto, online,",
    "train=3": "train=3 does not exist. Choices: default",
    "model=[gpt,bigram]": "model takes one name, not a list; for a sweep: -m model=gpt,bigram",
    "model=gpt,bigram": "for a sweep add -m",
    "seed=range(3)": "for a sweep add -m",
    "model={a:1}": "model={a:1} does not exist",
    # values
    "train.steps=0": "train.steps=0 must be at least 1",
    "train.batch_size=0 train.seq_len=0": "train.batch_size=0 must be at least 1",
    "train.steps=1e3": "train.steps=1000.0 should be a whole number",
    "train.steps=abc": "train.steps=abc should be a whole number",
    "train.steps=true": "train.steps=true should be a whole number",
    "train.steps=[1]": "train.steps=[1] should be a whole number",
    "train.batch_size=null": "train.batch_size=null should be a whole number",
    "train.steps=???": "train.steps has no value; give one: train.steps=…",
    "train.batch_size=0": "train.batch_size=0 must be at least 1",
    "train.clip=0": "train.clip=0 must be above 0, or null",
    "data=python_docs train.seq_len=100000000000": "train.seq_len=100000000000",
    "seed=-1": "seed=-1 must be at least 0",
    "seed=99999999999999999999": "seed=99999999999999999999 is too large",
    "optimizer.lr=nan": "optimizer.lr=nan is not a finite number",
    "optimizer.lr=inf": "optimizer.lr=inf is not a finite number",
    "optimizer.lr=abc": "optimizer.lr=abc should be a number",
    "optimizer.lr=-1": "optimizer.lr=-1 must be a finite number, at least 0",
    "~optimizer.lr": "optimizer.lr=null should be a number",
    "optimizer.decay_embeddings=3": "optimizer.decay_embeddings=3 should be true or false",
    "optimizer.betas=[0.9]": "optimizer.betas=[0.9] should be a list: [a number, a number]",
    "optimizer.betas=[0.9,nan]": "optimizer.betas[1]=nan is not a finite number",
    "schedule.warmup=abc": "schedule.warmup=abc should be a number",
    "schedule.warmup=3000": "warmup=3000 must lie between 0 and ",
    "model.n_head=3": "n_embd=128 is not a multiple of n_head=3",
    "model.n_embd=100000000000000": "model=gpt has weights of more than",
    "model.block_size=8": "train.seq_len=64 exceeds the model's block_size=8",
    "eval.stride=65": "eval.stride=65 must lie between 1 and block_size=64",
    "compile=yes": "compile=yes should be true or false",
    "resume=maybe": "resume=maybe should be true or false or auto",
    "run_dir=5": "run_dir=5 should be text or null; as text: 'run_dir=\"5\"'",
    "device=gpu": "device=gpu is not one of auto, cpu, cuda, mps. Did you mean cpu?",
    "device=cuda:x": "device=cuda:x should be cuda or cuda:0, cuda:1, …",
    "precision=fp8": "precision=fp8 is not one of auto, fp32, bf16, fp16. Did you mean fp32?",
    "data.split=[0.8,0.1]": "split=[0.8, 0.1] must be three shares",
    "data.split=8": "data.split=8 should be a list: [a number, …]",
    "data=text": "data.path has no value; give one: data.path=…",
    "data=text data.path=/nowhere": "data.path=/nowhere can't be read",
    "names.model=../../out": "names.model=../../out must be a plain name",
    "model.n_embd=${nope}": "model.n_embd: Interpolation key 'nope' not found",
    "seed=${seed}": "seed: Recursive interpolation detected",
    "names=3": "names=3 should be a group of settings (data, tokenizer, model)",
    # what no grammar takes
    "a b": "'a' is not a setting: write KEY=VALUE",
    "=3": "'=3' is not a setting: write KEY=VALUE",
    "eval.prompt=é": "its value needs quotes, as in 'eval.prompt=\"é\"'",
    'train.steps="5': "train.steps=\"5 can't be parsed",
    # options
    "--nope": "there is no option --nope",
    "--mutlirun": "there is no option --mutlirun. Did you mean --multirun?",
    "model=gpt -m seed=0,1": "put options such as -m before the first setting",
    "-m --cfg job": "only one of --run, --multirun, --cfg",
    "--resolve": "--resolve goes with --cfg",
    "--config-dir nope": "nope' not found",
    "--config-name nope": "Cannot find primary config 'nope'",
    "--experimental-rerun x": "--experimental-rerun is not supported",
    # folders
    "run_dir=/": "run_dir=/ exists already; go on with it by resume=true",
    f"run_dir={'x' * 300}": "File name too long",
    "run_dir=/dev/null/x": "/dev/null is not a writable folder",
    "resume=true": "resume=true needs run_dir=…",
    "resume=true run_dir=nope": "nope is not a run's folder: it has no config.yaml",
    "hydra.run.dir=x": "hydra.run.dir can't be changed; name the run's folder by run_dir=…",
    "hydra.verbose=3": "hydra.verbose=3 should be true or false",
    # sweeps
    "-m model=gpt,nope": "model=nope does not exist. Choices: bigram, ",
    "-m model=gpt,bigram train.stepz=3": "Did you mean train.steps?",
    "-m seed=0,1 train.steps=0": "train.steps=0 must be at least 1",
    "-m seed=0,1 model.n_head=3": "n_embd=128 is not a multiple of n_head=3",
    "-m seed=0,1 data=text data.path=/nowhere": "data.path=/nowhere can't be read",
    "-m seed=": "seed= should be a whole number",
    "-m seed=0,1 run_dir=x": "run_dir names the folder of one run; for a sweep: hydra.sweep.dir=…",
    "-m seed=0,1 resume=true": "resume=true needs hydra.sweep.dir=…",
    "-m seed=0,1 hydra.sweep.dir=/": "hydra.sweep.dir=/ exists already; go on with it by resume=",
    "-m seed=0,1 hydra.sweep.dir=/dev/null/x": "hydra.sweep.dir=/dev/null/x",
    "-m seed=0,1 hydra.sweep.subdir=x": "hydra.sweep.subdir can't be changed",
    "experiment=compare seed=-1": "seed=-1 must be at least 0",
}


def one_line(ended: Ended) -> str:
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert ended.out == ""
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrongly taken for sound fails here instead of training for minutes."""

    def train(*arguments: object, **named: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(loop, "train", train)


@pytest.mark.usefixtures("_no_training")
# Neighbours are of one kind: every fourth one in the quick suite.
@pytest.mark.parametrize(
    "line", [pytest.param(x, marks=[pytest.mark.long] if n % 4 else []) for n, x in enumerate(BAD)]
)
def test_a_mistake_is_one_line(line: str, command: Command, tmp_path: Path) -> None:
    ended = command("train", *line.split())
    assert ended.code == 2
    assert BAD[line] in one_line(ended)
    assert list((tmp_path / "here").iterdir()) == []


DATA = {
    'eval.prompt="é"': "eval.prompt: character 'é'",
    "data.path=empty": "the train split is empty",
    "train.seq_len=20000": "which is too short for sequences of train.seq_len=20000",
    "data.path=.": "the train split is empty: the corpus has 0 bytes",
    "data=tiny_shakespeare data.url=http://127.0.0.1:9/x assets=[]": "86c4e6aa9db7c042ec79f339dc",
}


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize("line", DATA)
def test_a_mistake_in_the_data_is_one_line(
    line: str, command: Command, small_text: Path, tmp_path: Path
) -> None:
    (tmp_path / "here" / "empty").touch()
    text = [] if "data=" in line else ["data=text", f"data.path={small_text}"]
    ended = command("train", *text, f"cache={tmp_path / 'cache'}", *line.split())
    assert ended.code == 2
    assert DATA[line] in one_line(ended)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["empty"]


def test_a_choice_is_shown_with_all_there_are(command: Command) -> None:
    names = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
    assert one_line(command("train", "model=zzz")).endswith(f"Choices: {', '.join(names)}")


def test_the_real_command_ends_as_the_one_in_this_process(
    process: Process, command: Command, tmp_path: Path
) -> None:
    """A few of the above, so that nothing above is owed to the process of the tests."""
    for line in ("train.stepz=3", "-m model=gpt,nope", "model.n_embd=${nope}", "--nope"):
        ended, expected = process("train", *line.split()), command("train", *line.split())
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", expected.err)
    assert list((tmp_path / "here").iterdir()) == []


# Command lines, and whether answering them may load torch. Its compiler, another second, none may.
ANSWERED_AT_ONCE = {
    "--help": False,
    "train.stepz=3": False,
    "seed=-1": False,
    "model._target_=a.B": False,
    "-m model=gpt,nope": False,
    "optimizer.lr=abc": True,
    "model.n_head=3": True,
}


SAME_WAY = {"seed=-1", "model._target_=a.B", "model.n_head=3"}  # as one of the others


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[pytest.mark.long] if line in SAME_WAY else [])
        for line in ANSWERED_AT_ONCE
    ],
)
def test_a_mistake_is_answered_before_what_takes_seconds_is_loaded(
    line: str, tmp_path: Path
) -> None:
    script = (
        "import runpy, sys\n"
        "try: runpy.run_module('harness.train', run_name='__main__', alter_sys=True)\n"
        "finally: print({'torch', 'torch._dynamo'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *line.split()],
        cwd=tmp_path, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert ended.returncode == (0 if line == "--help" else 2), ended.stderr
    loaded = "{'torch'}" if ANSWERED_AT_ONCE[line] else "set()"
    assert ended.stderr.splitlines()[-1] == loaded
    assert list(tmp_path.iterdir()) == []


def test_help_shows_what_can_be_chosen_and_set(command: Command) -> None:
    ended = command("train", "--help")
    assert ended.code == 0
    assert ended.err == ""
    for expected in ("  model=gpt", "    bigram  ", "train.seq_len=64  ", "resume=false  ", "-m"):
        assert expected in ended.out


@pytest.mark.parametrize("name", ["bench", "prepare"])
def test_help_is_the_commands_own_and_says_what_everything_is(name: str, command: Command) -> None:
    found = command(name, "--help", "experiment=seed_mlp").out
    module = importlib.import_module(f"harness.{name}")
    assert found.startswith(module.__doc__ or "?")
    choices, _, settings = found.partition("\nSettings, KEY=VALUE")
    assert re.search(r"^    llama {10,}Llama 2", choices, re.MULTILINE)
    assert re.search(r"^  optimizer=sgd$", choices, re.MULTILINE)
    rows = [line for line in settings.splitlines() if line.startswith("  ")]
    assert len(rows) > 50
    assert [row for row in rows if not re.fullmatch(r"  [\w.]+=.+?  +\S.*", row)] == []
    assert "  model.context=10                  tokens it sees" in rows


BAD_TOOLS = {
    "sample": "the following arguments are required: run",
    "sample nope": "nope is not a run's folder: it has no config.yaml",
    "sample RUN --sede 3": "there is no option --sede. Did you mean --seed?",
    "sample RUN --temp 1": "there is no option --temp. Did you mean --temperature?",
    "sample RUN --tokens x": "argument --tokens: invalid int value: 'x'",
    "sample RUN --tokens 0": "--tokens 0 must be at least 1",
    "sample RUN --num-samples 0": "--num-samples 0 must be at least 1",
    "sample RUN --seed -1": "--seed -1 must be at least 0",
    "sample RUN --seed 99999999999999999999": "--seed 99999999999999999999 must be below 2^63",
    "sample RUN --beams 0": "--beams 0 must be at least 1",
    "sample RUN --beams 2 --num-samples 3": "--num-samples 3 exceeds --beams 2",
    "sample RUN --beams 2 --top-k 3": "--top-k has no meaning with --beams",
    "sample RUN --temperature -1": "--temperature=-1 must be 0 (greedy) or above",
    "sample RUN --temperature nan": "--temperature=nan must be",
    "sample RUN --top-k 0": "--top-k=0 must be at least 1",
    "sample RUN --top-p 0": "--top-p=0 must be above 0 and at most 1",
    "sample RUN --top-p 1.5": "--top-p=1.5 must be above 0 and at most 1",
    "sample RUN --prompt é": "--prompt: character 'é' at offset 0",
    "sample RUN --prompt=": "--prompt '' has no tokens",
    "sample RUN --device gpu": "--device=gpu is not one of auto, cpu, cuda, mps",
    "sample RUN --checkpoint bset": "--checkpoint bset is not one of best, latest. Did you mean",
    "evaluate RUN --split tset": "--split tset is not one of train, val, test. Did you mean test?",
    "evaluate RUN --stride 0": "--stride=0 must lie between 1 and block_size=16",
    "evaluate RUN --stride 17": "--stride=17 must lie between 1 and block_size=16",
    "evaluate RUN --batch-size 0": "--batch-size 0 must be at least 1",
    "evaluate RUN --precision fp8": "--precision fp8 is not one of auto, fp32, bf16, fp16.",
    "evaluate .": ". is not a run's folder",
    "evaluate /dev/null": "/dev/null is not a run's folder",
    "compare": "the following arguments are required: RUN_OR_FOLDER",
    "compare nope": "nope: no such folder",
    "bench train.stepz=3": "Did you mean train.steps?",
    "bench model=nope": "model=nope does not exist",
}


@pytest.mark.parametrize("line", BAD_TOOLS)
def test_a_mistake_of_the_other_tools_is_one_line(
    line: str, command: Command, finished_run: Path, tmp_path: Path
) -> None:
    tool, *arguments = line.replace("RUN", str(finished_run)).split()
    if tool == "compare":
        arguments = line.split()[1:]
    ended = command(tool, *arguments)
    assert ended.code == 2
    assert BAD_TOOLS[line] in one_line(ended)
    assert list((tmp_path / "here").iterdir()) == []
