"""A finished run, read back: settings, tokenizer, weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.compute.meta import meta_model
from harness.compute.precision import require_kernels
from harness.config import identity
from harness.config.keys import Node
from harness.config.saved import load_settings
from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, build_tokenizer, prepare
from harness.runs import checkpoint, digests
from harness.runs.checkpoint import BestCheckpoint, Checkpoint, StepCheckpoint
from harness.runs.folder import RunFolder
from harness.runs.restore import load_weights, require_weights
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
        assets = Assets.own().of_stranger(self.settings.trust)
        try:
            return prepare(corpus, self.tokenizer, assets, trained=self.corpus_digest)
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
) -> Run:
    """Read a run's folder. which: "best" or "latest" weights. precision: None for the run's own.
    checkpoint_dir: where its folder of checkpoints lies, if not in its own.

    Raises UsageError if it is not a run's folder, has no checkpoint yet, or has another
    configuration than its weights were trained with.
    """
    folder = RunFolder.existing(path, checkpoint_dir)
    settings = load_settings(folder.config).replace(trust=trust)
    folder.require_checkpoint_dir(settings.checkpoint_dir)
    for line in digests.complaints(path):
        LOG.warning(f"{path}: {line}")
    compute = Compute.choose(device, precision or settings.precision, settings.tf32)
    best = checkpoint.load(folder.checkpoints, BestCheckpoint) if which == "best" else None
    saved = best or checkpoint.load(folder.checkpoints, StepCheckpoint)
    if saved is None:
        raise UsageError(f"{path} has no checkpoint yet")
    tokenizer = load_tokenizer(settings, folder, saved.tokenizer)
    settings.check("model", LanguageModel, vocab_size=tokenizer.vocab_size)
    identity.require_same_settings(saved.settings, settings, folder.config, SCORED)
    # Without memory first: it is as large as its weights, or memory is not asked for.
    shapes = meta_model(settings, tokenizer.vocab_size)
    weights = _evaluated_weights(saved)
    with checkpoint.restoring(folder.checkpoints):
        require_weights(shapes, weights, "model")
    model = settings.build("model", LanguageModel, vocab_size=tokenizer.vocab_size)
    with checkpoint.restoring(folder.checkpoints):
        load_weights(model, weights, "model")
    model.to(compute.device).eval()
    require_kernels(model, compute, settings.names.model)
    return Run(
        folder, settings, tokenizer, model, compute,
        saved.step, saved.corpus, saved.settings,
    )  # fmt: skip


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
