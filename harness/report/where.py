"""`harness.compare --where`: from the runs of a comparison to where their differences come from."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from harness.common.errors import RunFailure, UsageError
from harness.compute.meta import meta_model
from harness.config.saved import load_settings
from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, prepare
from harness.data.encoded import Split
from harness.evaluation import token_classes, token_scores
from harness.evaluation.score import token_nats
from harness.report.records.groups import Group
from harness.report.records.runs import RunRecord
from harness.report.records.selection import WORDS
from harness.report.records.selection import Split as SplitName
from harness.report.statistics import where
from harness.report.statistics.differences import MAX_TESTED
from harness.report.statistics.floor import find_floor
from harness.report.statistics.passages import contrasts
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.where import PairWhere, Where
from harness.runs import token_nats as stored
from harness.runs.folder import RunFolder
from harness.runs.load import load_run, stored_tokenizer
from harness.runs.summary import DEFINITION
from harness.runs.token_nats import TokenNats
from zoo_tokenizers import Tokenizer


def find_where(comparison: Comparison, split: SplitName, trust: Sequence[str]) -> Where:
    """Compare the best group with each other one, token by token. Runs without stored losses are
    scored, which is said on stderr.

    trust: packages of the user's own models. Raises UsageError for runs of several texts or
    tokenizers, and for one that can't be scored.
    """
    groups = list(comparison.ranked[:MAX_TESTED])
    reading = TokenReader(groups, split, list(trust))
    losses = [[reading.losses(run) for run in group.counted] for group in groups]
    floor = find_floor(groups)
    partitions = reading.partitions(floor.group if floor else None)
    full = [[own.full for own in each] for each in losses]
    wholes = where.whole_pairs(groups, full, reading.tokens, reading.split.bytes)
    pairs = where.correct(
        [where.divide(full[0], other, reading.tokens, partitions) for other in full[1:]]
    )
    return Where(
        split,
        reading.split.bytes,
        tuple(
            PairWhere(
                groups[0], other, whole, pair,
                tuple(
                    contrasts(
                        pair.differences, reading.ids_M, reading.tokenizer,
                        (groups[0].label, other.label),
                    )
                ),
            )
            for other, whole, pair in zip(groups[1:], wholes[: len(pairs)], pairs, strict=True)
        ),
        tuple(
            (group, reading.curve(group, own)) for group, own in zip(groups, losses, strict=True)
        ),
        floor.group if floor else None,
    )  # fmt: skip


def _require_one_text(groups: Sequence[Group]) -> None:
    if len(groups) < 2:
        raise UsageError(
            f"token by token at least two models are compared, and {len(groups)} of these has a "
            "score in bits per byte; harness.compare says why"
        )
    for what, found in (
        ("texts", {group.data for group in groups}),
        ("tokenizers", {group.tokenizer for group in groups}),
    ):
        if len(found) > 1:
            raise UsageError(
                f"runs of one text and tokenizer are compared token by token, and these have "
                f"several {what}: {', '.join(sorted(found))}"
            )


class TokenReader:
    """The text that the groups share, and the losses of their runs. Raises UsageError where they
    share none."""

    def __init__(self, groups: Sequence[Group], split: SplitName, trust: list[str]) -> None:
        _require_one_text(groups)
        self._runs = [run for group in groups for run in group.counted]
        self._name, self._trust = split, trust
        self._settings = {run.folder: self._read_settings(run) for run in self._runs}
        self.tokenizer = self._one_tokenizer()
        self.dataset = self._dataset()
        found = getattr(self.dataset, split)
        if found is None:
            raise UsageError(f"data.split leaves no {WORDS[split]} split to compare token by token")
        self.split: Split = found

    def _read_settings(self, run: RunRecord) -> Settings:
        return load_settings(RunFolder.existing(run.folder).config).replace(trust=self._trust)

    def _one_tokenizer(self) -> Tokenizer:
        """Raises UsageError if equal names hide different vocabularies."""
        found = [
            stored_tokenizer(settings, RunFolder(folder))
            for folder, settings in self._settings.items()
        ]
        for run, tokenizer in zip(self._runs, found, strict=True):
            if tokenizer.digest != found[0].digest:
                raise UsageError(
                    f"runs of one tokenizer are compared token by token, and {run.folder} has "
                    f"another vocabulary than {self._runs[0].folder}"
                )
        return found[0]

    def _dataset(self) -> Dataset:
        run = self._runs[0]
        splits = {str(settings.data["split"]) for settings in self._settings.values()}
        if len(splits) > 1:
            raise UsageError(f"the runs split the text differently: {', '.join(sorted(splits))}")
        settings = self._settings[run.folder]
        assets = Assets.own().of_stranger(settings.trust)
        corpus = settings.build("data", Corpus)
        if several := corpus.several:
            raise UsageError(
                f"one long text is compared token by token, and these data are {several}"
            )
        return prepare(corpus, self.tokenizer, assets, trained=run.corpus)

    @cached_property
    def ids_M(self) -> NDArray[np.int64]:
        return np.asarray(self.split.ids).astype(np.int64)

    @cached_property
    def tokens(self) -> where.Tokens:
        sizes_M = self.tokenizer.token_bytes[self.ids_M]
        return where.Tokens(sizes_M, self.split.bytes - int(sizes_M[0]), self.split.unknown_nats)

    def losses(self, run: RunRecord) -> TokenNats:
        """Those in the run's folder, or else made now and kept there."""
        scored = getattr(run, self._name)
        tokens = len(self.ids_M) - 1
        if scored is None or scored.nats_per_token is None or scored.tokens is None:
            raise UsageError(f"{run.folder} has no {WORDS[self._name]} score")
        total = scored.nats_per_token * scored.tokens - self.split.unknown_nats
        score = f"{DEFINITION} {run.corpus} {scored.nats_per_token!r} {self._window(run)}"
        found = stored.read(run.folder, self._name, tokens, score)
        if found is not None:
            return found
        _say(f"{run.folder}: no losses of single {WORDS[self._name]} tokens yet; scoring them once")
        loaded = load_run(run.folder, "best", "auto", self._trust)
        made = token_scores.token_scores(loaded, self.ids_M)
        if not stored.are_of(made, total):
            anew = float(made.full.sum(dtype=np.float64)) / tokens
            raise UsageError(
                f"{run.folder} scores {anew:.4f} nats per token here, and its summary "
                f"says {total / tokens:.4f}: other weights, text or settings than it was scored by"
            )
        try:
            stored.write(run.folder, self._name, made, score)
        except RunFailure as error:
            _say(f"they are not kept: {error}")
        return made

    def _window(self, run: RunRecord) -> int:
        """How long the windows are in which its context is limited."""
        settings = self._settings[run.folder]
        block_size = meta_model(settings, self.tokenizer.vocab_size).block_size
        return token_scores.window_length(block_size, settings.train.seq_len)

    def partitions(self, floor: Group | None) -> list[token_classes.Partition]:
        """Those of the text and, with a counted model, that of its certainty."""
        context = max(settings.train.seq_len for settings in self._settings.values())
        found = token_classes.of_text(
            self.tokenizer, np.asarray(self.dataset.train.ids), self.ids_M, self.dataset.counts(),
            context,
        )  # fmt: skip
        if floor is not None:
            run = load_run(floor.counted[0].folder, "best", "auto", self._trust)
            plan: Any = run.settings.eval
            entropy_N = token_nats(
                run.model, self.ids_M, run.compute, plan.stride, plan.batch_size, measure=entropy_N1
            )
            found.append(token_classes.by_certainty(entropy_N[:, 0]))
        return found

    def curve(self, group: Group, losses: Sequence[TokenNats]) -> where.ContextCurve:
        """The group's loss over the length of the context."""
        run = group.counted[0]
        contexts_N = token_scores.contexts(len(self.ids_M) - 1, self._window(run))
        trained = self._settings[run.folder].train.seq_len
        full, limited = zip(*losses, strict=True)
        return where.context_curve(full, limited, contexts_N, trained, self.tokens)


def entropy_N1(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The entropy of each prediction in bits, (N, 1)."""
    log_p_NV = F.log_softmax(logits_NV.float(), dim=-1)
    return -torch.xlogy(log_p_NV.exp(), log_p_NV.exp()).sum(-1, keepdim=True) / math.log(2)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
