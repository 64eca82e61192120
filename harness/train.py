"""Train one model, or many.

    python -m harness.train model=gpt tokenizer=char
    python -m harness.train -m model=bigram,gpt seed=0,1,2

What is imported here at the top is light: a mistake in the configuration is answered before torch
is loaded. The loop itself is `harness.loop.train`.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from harness import config, process, secrets
from harness.cli import INTERRUPTED, TERMINATED, run_hydra
from harness.config import Settings
from harness.errors import RunFailure, UsageError
from harness.interrupt import Interrupt, Stopped
from harness.resume import is_finished, require_same_origin, resumed
from harness.run_folder import RunFolder, Summary, git, versions
from harness.sweep import job_folder
from harness.values import show
from harness.world import ALONE, World

if TYPE_CHECKING:
    from harness.data import Dataset
    from harness.device import Compute
    from harness.loggers import Logger, Row

LOG = logging.getLogger("harness")


def task(cfg: DictConfig) -> int:
    """What Hydra runs for each composed configuration; returns the exit code."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    typed: Any = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    overrides: list[str] = typed
    if hydra_config.mode == RunMode.MULTIRUN:
        return _sweep_job(cfg, Path(hydra_config.sweep.dir), int(hydra_config.job.num), overrides)
    settings = config.read(cfg)
    return run(resumed(settings, overrides) if settings.resume else settings)


def run(settings: Settings) -> int:
    """One training, from its settings to its folder; returns the exit code.

    All that can be wrong with the settings is found before data are read, and all that can be wrong
    with the data before the folder is made.
    """
    config.require_trusted(settings)
    world = World.of_environment()
    world.check(settings)
    if settings.resume:
        folder = RunFolder.existing(Path(settings.run_dir or ""))
        if is_finished(folder, settings):
            print(f"{folder.path} is finished already: nothing to do", file=sys.stderr)
            return 0
    elif settings.run_dir and world.is_first:
        _require_free(RunFolder(Path(settings.run_dir)))

    from harness import checkpoint
    from harness.device import Compute, make_deterministic
    from harness.memory import require_room
    from harness.precision import require_precision

    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    settings.precision = compute.precision  # resolved: a resumed run keeps it
    check(settings, world)
    dataset = load_dataset(settings)
    require_room(settings, dataset.tokenizer.vocab_size, compute.device)
    make_deterministic()  # only now: it takes a second, and a mistake is to be answered at once
    with world.joined(compute.device) as nowhere:
        require_precision(settings, compute)
        before = folder if settings.resume else None
        if nowhere is not None:
            settings.run_dir, settings.logger = nowhere, {"local": settings.logger["local"]}
        if before is None or nowhere is not None:
            folder = _create_folder(settings)
        with folder.claimed():
            saved = None
            if before is not None:
                saved = checkpoint.load(before.checkpoints, "step")
                require_same_origin(saved, dataset, settings, folder)
                folder.write_config(settings.dump())
            if saved is None:
                dataset.tokenizer.save(folder.tokenizer)
                folder.write_counts(dataset.counts())
            return _train(settings, dataset, compute, folder, saved, world)


def check(settings: Settings, world: World = ALONE) -> None:
    """Build what can be built without data. Raises UsageError for what could not be trained."""
    import torch

    from harness import batch_norm, measure
    from harness.data import Corpus
    from harness.max_norm import limited_weights
    from harness.metrics import resolve_stride
    from harness.optim import check_arguments, check_optimizer
    from harness.schedule import Schedule
    from zoo.language_model import LanguageModel
    from zoo_tokenizers import Tokenizer

    # First what is answered at once; building an optimizer loads torch's compiler.
    settings.check("model", LanguageModel, vocab_size=256)
    check_arguments(settings)
    settings.build("schedule", Schedule, total=settings.train.budget[1])
    settings.build("data", Corpus)
    settings.build("tokenizer", Tokenizer)
    for name in settings.logger:
        _build_logger(settings, name)
    try:
        with torch.device("meta"), measure.Undrawn():
            model = settings.build("model", LanguageModel, vocab_size=256)
            model.initialize(settings.init, settings.zero_residual)
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        raise UsageError(f"model: too large for any memory ({error})") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    if model.block_size is not None:
        if settings.train.seq_len > model.block_size:
            raise UsageError(
                f"train.seq_len={settings.train.seq_len} exceeds the model's "
                f"block_size={model.block_size}"
            )
        try:
            resolve_stride(model.block_size, settings.eval.stride)
        except ValueError as error:
            raise UsageError(f"eval.{error}") from error
    if settings.train.budget[0] == "flops" and not measure.step_flops(lambda: model, 1):
        raise UsageError(f"train.flops never ends: {settings.names.model} costs no FLOPs")
    if settings.train.patience is not None and not settings.data["split"][1]:
        raise UsageError("train.patience needs a validation split; data.split leaves none")
    check_optimizer(settings, model)
    batch_norm.require_some(model, settings.train.batch_norm)
    if world.size > 1 and batch_norm.layers(model):
        raise UsageError(
            "batch normalization: its statistics would be those of one process's share; train this "
            "model in one process"
        )
    if settings.train.max_norm is not None and not limited_weights(model):
        raise UsageError("train.max_norm: the model has no weights but embeddings")


def load_dataset(settings: Settings) -> Dataset:
    """The encoded corpus. Raises UsageError if it can't be had or is too short to train on."""
    from harness.assets import Assets
    from harness.data import Corpus, prepare, require_length
    from zoo_tokenizers import Tokenizer, TokenizerError

    corpus = settings.build("data", Corpus)
    tokenizer = settings.build("tokenizer", Tokenizer)
    dataset = prepare(corpus, tokenizer, Assets.of(settings.assets, settings.cache))
    require_length(dataset, settings.train.seq_len)
    settings.names.data = corpus.found or settings.names.data
    try:
        tokenizer.encode(settings.eval.prompt or "")
    except TokenizerError as error:
        raise UsageError(f"eval.prompt: {error}") from error
    return dataset


def _train(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    folder: RunFolder,
    saved: dict[str, Any] | None,
    world: World,
) -> int:
    """The loop, and what a run leaves behind however it ends."""
    from harness.guards import NonFinite
    from harness.loop import train

    summary = _first_summary(settings, dataset, compute)
    interrupt = Interrupt(together=world.size > 1)
    loggers = choose_loggers(settings, interrupt)
    with (
        folder.logging(quiet=not world.is_first),
        interrupt.listening(),
        process.signed(folder.path) if world.is_first else nullcontext(),
        _progress_bar(settings) if world.is_first else nullcontext(_ignore) as on_step,
    ):
        LOG.info(f"run folder: {folder.path}")
        for note in dataset.notes():
            LOG.warning(note)
        folder.write_summary(summary)
        try:
            train(
                settings, dataset, compute, folder, loggers, summary, interrupt, LOG.info, on_step,
                saved, world,
            )  # fmt: skip
            summary["status"], code = "finished", 0
        except Stopped as stop:
            summary["status"] = "stopped"
            code = TERMINATED if stop.signum == signal.SIGTERM else INTERRUPTED
            LOG.warning(f"{stop}, work saved; go on: run_dir={folder.path} resume=true")
        except KeyboardInterrupt:
            summary["status"], code = "stopped", INTERRUPTED
            LOG.warning(
                "interrupted at once, nothing saved; go on from the last checkpoint: "
                f"run_dir={folder.path} resume=true"
            )
        except NonFinite as error:
            code = _record(summary, "non_finite", error)
        except RunFailure as error:
            code = _record(summary, "failed", error)
        except Exception as error:
            code = _record(summary, "failed", _out_of_memory(error, settings) or error)
        finally:
            try:
                folder.write_summary(summary)
            finally:
                for logger in loggers:
                    logger.close(summary)
    if code == 0 and world.is_first:
        print(_result(summary, folder))
    return code


def _record(summary: Summary, status: str, error: Exception) -> int:
    """Say in the summary and the log how the run failed; a bug with its traceback."""
    clear = isinstance(error, (RunFailure, UsageError))
    summary["status"] = status
    summary["error"] = str(error) if clear else f"{type(error).__name__}: {error}"
    LOG.error(f"error: {summary['error']}", exc_info=None if clear else error)
    return 1


def _out_of_memory(error: Exception, settings: Settings) -> RunFailure | None:
    """What to lower, if memory ran out: the batch size never changes by itself."""
    text = str(error) or type(error).__name__
    known = ("out of memory", "can't allocate memory")
    if not isinstance(error, MemoryError) and not any(words in text.lower() for words in known):
        return None
    return RunFailure(
        f"out of memory ({text.splitlines()[0]}); lower train.batch_size="
        f"{settings.train.batch_size} (and raise train.accumulate by as much for the same batch), "
        "train.seq_len or the model's size"
    )


def _first_summary(settings: Settings, dataset: Dataset, compute: Compute) -> Summary:
    unknown_yet = (
        *("receptive_field", "parameters", "flops_per_token"),
        *("train", "val", "test", "best"),
    )
    return {
        "status": "running",
        **vars(settings.names),
        "seed": settings.seed,
        "corpus": {"sha256": dataset.digest, "split": settings.data["split"]},
        "lossless": dataset.tokenizer.lossless,
        "lost": dataset.lost and asdict(dataset.lost),
        "leaks": dataset.tokenizer.leaks,
        "causal": settings.train.batch_norm != "batch",
        "vocab_size": dataset.tokenizer.vocab_size,
        **dict.fromkeys(unknown_yet),
        "machine": compute.describe(),
        "versions": versions(),
        "git": git(),
    }


def _result(summary: Summary, folder: RunFolder) -> str:
    """The one line on stdout: what the run came to."""
    scores = [
        f"{name} {score['bits_per_byte']:.4f} bits/byte"
        if score["bits_per_byte"] is not None
        else f"{name} {score['nats_per_token']:.4f} nats/token"
        for name in ("val", "test")
        if (score := summary[name]) is not None
    ]
    return "  ".join([*scores, str(folder.path)])


@contextmanager
def _progress_bar(settings: Settings) -> Iterator[Callable[[Row], None]]:
    """A bar on stderr with loss, rate and time left; nothing where that is no terminal."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    names = settings.names
    currency, total = settings.train.budget
    description = f"{names.model} {names.tokenizer} s{settings.seed}"
    with (
        logging_redirect_tqdm([LOG]),
        tqdm(
            total=total,
            desc=description,
            unit=" " + currency,
            unit_scale=currency != "steps",
            disable=None,
            dynamic_ncols=True,
        ) as bar,
    ):

        def on_step(row: Row) -> None:
            spent = min(row["step"] if currency == "steps" else row[currency], total)
            if not bar.n:
                bar.initial = bar.n = spent  # a resumed run: its rate is that of this session
            if "train/loss" in row:
                bar.set_postfix_str(f"loss {row['train/loss']:.3f}", refresh=False)
            bar.update(spent - bar.n)

        yield on_step if not bar.disable else _ignore


def _ignore(row: Row) -> None:
    pass


def choose_loggers(settings: Settings, interrupt: Interrupt) -> list[Logger]:
    """The local one, and all others behind it."""
    from harness.loggers.followers import Followers

    others = [name for name in settings.logger if name != "local"]
    return [_build_logger(settings, "local"), *([Followers(others, interrupt)] if others else [])]


def _build_logger(settings: Settings, name: str) -> Logger:
    from harness.loggers import Logger

    return config.build(settings.logger[name], Logger, f"logger.{name}", settings.trust)


def _require_free(folder: RunFolder) -> None:
    """Raises UsageError if the folder is there already or can't be made."""
    try:
        if folder.path.exists():
            raise UsageError(folder.taken)
        base = next(parent for parent in folder.path.absolute().parents if parent.exists())
    except OSError as error:
        raise UsageError(f"run_dir={show(folder.path)}: {error.strerror}") from error
    if not (base.is_dir() and os.access(base, os.W_OK)):
        raise UsageError(f"run_dir={show(folder.path)}: {base} is no folder that can be written to")


def _create_folder(settings: Settings) -> RunFolder:
    """The folder of a fresh run: run_dir, or else the first free name of this second."""
    if settings.run_dir:
        folder = RunFolder(Path(settings.run_dir))
        folder.create(settings.dump())
        return folder
    now, names = datetime.now(), settings.names
    name = f"{now:%H-%M-%S}-{names.model}-{names.tokenizer}-s{settings.seed}"
    for number in itertools.count(1):
        folder = RunFolder(
            Path("runs") / f"{now:%Y-%m-%d}" / (name if number == 1 else f"{name}-{number}")
        )
        with suppress(UsageError):  # another process's, perhaps made this very moment
            folder.create(settings.dump())
            return folder
    raise AssertionError("unreachable")


# One job of a sweep


def _sweep_job(cfg: DictConfig, sweep: Path, number: int, overrides: list[str]) -> int:
    """Run a job in a folder of its own in the sweep's. However it fails, the others go on."""
    print(f"job {number}: {' '.join(overrides)}", file=sys.stderr)
    try:
        settings = config.read(cfg)
    except UsageError as error:
        from hydra.core.hydra_config import HydraConfig

        chosen = HydraConfig.get().runtime.choices
        names = {name: chosen[name] for name in ("data", "tokenizer", "model")}
        path = sweep / f"{number}-{names['model']}-{names['tokenizer']}"
        return _record_failed_job(path, _refused(cfg), names, error)
    name = f"{number}-{settings.names.model}-{settings.names.tokenizer}-s{settings.seed}"
    path = job_folder(sweep, name, settings) if settings.resume else sweep / name
    try:
        settings.run_dir = str(path)
        settings.resume = settings.resume and (path / "config.yaml").exists()
        code = run(settings)
    except Exception as error:
        names = {**vars(settings.names), "seed": settings.seed}
        return _record_failed_job(path, settings.dump(), names, error)
    if code in (TERMINATED, INTERRUPTED):  # the whole sweep was told to stop, not this job
        print(f"the sweep: the same command, resume=true hydra.sweep.dir={sweep}", file=sys.stderr)
        sys.exit(code)
    return code


def _refused(cfg: DictConfig) -> str:
    """A configuration that could not be read, as YAML; nothing of one that holds a secret."""
    try:
        secrets.require_none(OmegaConf.to_container(cfg, resolve=False))
    except UsageError:
        return ""
    return OmegaConf.to_yaml(cfg)


def _record_failed_job(path: Path, config: str, names: Summary, error: Exception) -> int:
    """A job that failed before it had a folder gets one, so that the sweep's table shows it."""
    folder = RunFolder(path)
    summary = {"status": "failed", **names}
    is_new = not path.exists()
    if is_new:
        folder.create(config)
    with folder.logging():
        _record(summary, "failed", error)
        if isinstance(error, UsageError):
            LOG.debug("where the job failed:", exc_info=error)
    if is_new:
        folder.write_summary(summary)
    return 1


if __name__ == "__main__":
    run_hydra(task)
