"""A finished run, read back: settings, tokenizer, weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.compute.device import Compute
from harness.compute.meta import meta_model
from harness.compute.precision import require_kernels
from harness.config import identity
from harness.config.keys import Node
from harness.config.model import build_model
from harness.config.saved import load_settings
from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, build_tokenizer, prepare
from harness.runs import checkpoint, digests
from harness.runs.checkpoint import BestCheckpoint, Checkpoint, StepCheckpoint
from harness.runs.folder import RunFolder
from harness.runs.restore import load_weights, require_weights
from harness.runs.summary import texts_of
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer, TokenizerError

LOG = logging.getLogger("harness")
# The settings that a score depends on.
SCORED = ("model", "tokenizer", "train", "eval", "precision", "tf32")
_AVERAGED = "module."  # the prefix of parameter names in torch's AveragedModel


@dataclass(frozen=True)
class Run:
    """A finished run. step: of the weights. trained: the settings of its training, as far as they
    decide the weights."""

    folder: RunFolder
    settings: Settings
    tokenizer: Tokenizer
    model: LanguageModel
    compute: Compute
    step: int
    corpus_digest: str
    trained: Node

    def dataset(self, path: Path | None = None) -> Dataset:
        """The run's corpus, encoded by its tokenizer. path: where its text lies now, if not where
        its settings say. Raises UsageError if the text or its split has changed."""
        corpus = self.settings.build("data", Corpus)
        if path is not None:
            corpus = corpus.moved_to(path)
        identity.require_same_settings(self.trained, self.settings, self.folder.config, ["data"])
        texts = self.corpus_digest, *texts_of(self.folder.path)
        assets = Assets.own().of_stranger(self.settings.trust, *texts)
        try:
            dataset = prepare(corpus, self.tokenizer, assets, trained=self.corpus_digest)
            return dataset.with_part_of_validation(self.settings.eval.part)
        except UsageError as error:
            if path is not None:
                raise
            raise UsageError(f"{error}; if it lies elsewhere now: --data-path FILE") from error


def load_run(
    path: Path,
    which: str,
    device: str,
    trust: list[str],
    precision: str | None = None,
    checkpoint_dir: str | None = None,
    context: int | None = None,
) -> Run:
    """Read a run's folder. which: "best" or "latest" weights, or those of a step. precision: None
    for the run's own. checkpoint_dir: where its folder of checkpoints lies, if not in its own.
    context: the block_size of the model, if not the one that it was trained with.

    Raises UsageError if it is not a run's folder, has no checkpoint yet, or has another
    configuration than its weights were trained with.
    """
    folder = RunFolder.existing(path, checkpoint_dir)
    settings = load_settings(folder.config).replace(trust=trust)
    folder.require_checkpoint_dir(settings.checkpoint_dir)
    for line in digests.complaints(path):
        LOG.warning(f"{path}: {line}")
    compute = Compute.choose(
        device, precision or settings.precision, settings.tf32, settings.matmul
    )
    best = checkpoint.load(folder.checkpoints, BestCheckpoint) if which == "best" else None
    step = None if which in ("best", "latest") else int(which)
    saved = best or checkpoint.load(folder.checkpoints, StepCheckpoint, step)
    if saved is None:
        raise UsageError(why_none(folder, step))
    tokenizer = load_tokenizer(settings, folder, saved.tokenizer)
    settings.check("model", LanguageModel, vocab_size=tokenizer.vocab_size)
    identity.require_same_settings(saved.settings, settings, folder.config, SCORED)
    trained = settings.model.get("block_size")
    if context is not None:
        if trained is None:
            raise UsageError(f"--context: {settings.names.model} has no block_size to change")
        settings = settings.replace(model=settings.model | {"block_size": context})
    # Without memory first: it is as large as its weights, or memory is not asked for.
    shapes = meta_model(settings, tokenizer.vocab_size)
    weights = _evaluated_weights(saved)
    try:
        with checkpoint.restoring(folder.checkpoints):
            require_weights(shapes, weights, "model")
    except RunFailure as error:
        if context is None:
            raise
        raise UsageError(
            f"--context {context}: {settings.names.model} has weights for a block_size of "
            f"{trained} alone, as learned positions are"
        ) from error
    model = build_model(settings, tokenizer.vocab_size)
    with checkpoint.restoring(folder.checkpoints):
        load_weights(model, weights, "model")
    model.to(compute.device).eval()
    require_kernels(model, compute, settings.names.model)
    return Run(
        folder, settings, tokenizer, model, compute,
        saved.step, saved.corpus, saved.settings,
    )  # fmt: skip


def why_none(folder: RunFolder, step: int | None) -> str:
    """Why there is no such checkpoint."""
    steps = sorted(checkpoint.list_steps(folder.checkpoints, StepCheckpoint))
    if not steps:
        return f"{folder.path} has no checkpoint yet"
    return (
        f"{folder.path} has no checkpoint of step {step}; it has those of "
        f"{', '.join(map(str, steps))} (checkpoint.keep=… keeps more)"
    )


def weights_by_step(run: Run) -> Iterator[tuple[int, dict[str, Any]]]:
    """The step of each checkpoint that is whole, oldest first, and the weights that are scored of
    it. Damaged ones are left out with a warning."""
    for step in sorted(checkpoint.list_steps(run.folder.checkpoints, StepCheckpoint)):
        try:
            saved = checkpoint.load(run.folder.checkpoints, StepCheckpoint, step)
        except RunFailure as error:
            LOG.warning(f"{error}; it is left out")
            continue
        if saved is None:
            continue  # a training has removed it just now
        identity.require_same_settings(saved.settings, run.settings, run.folder.config, SCORED)
        yield step, _evaluated_weights(saved)


def _evaluated_weights(saved: Checkpoint) -> dict[str, Any]:
    """The weights that are scored: their moving average, if the run keeps one."""
    if not isinstance(saved, StepCheckpoint) or saved.average is None:
        return saved.model
    average = saved.average.items()
    return {name[len(_AVERAGED) :]: value for name, value in average if name.startswith(_AVERAGED)}


def stored_tokenizer(settings: Settings, folder: RunFolder) -> Tokenizer:
    """What the folder has, which may not be the one its checkpoint belongs to. Raises UsageError if
    it is not complete."""
    tokenizer = build_tokenizer(settings)
    try:
        tokenizer.load(folder.tokenizer, partial(contained.read, inside=2))
    except TokenizerError as error:
        raise UsageError(str(error)) from error
    return tokenizer


def load_tokenizer(settings: Settings, folder: RunFolder, digest: str) -> Tokenizer:
    """The run's own tokenizer. Raises UsageError if it is not the one its checkpoint belongs to."""
    tokenizer = stored_tokenizer(settings, folder)
    if tokenizer.digest != digest:
        raise UsageError(
            f"the tokenizer in {folder.tokenizer} is not the one the checkpoint was trained with"
        )
    return tokenizer
