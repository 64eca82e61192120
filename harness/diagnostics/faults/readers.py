"""All that reads the files of a run: what the fuzzing calls."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.saved import load_settings
from harness.config.settings import Settings, read_settings
from harness.data.assets import Assets
from harness.diagnostics.faults.damage import (
    damaged_json,
    damaged_lines,
    damaged_yaml,
    spliced,
    with_other_values,
)
from harness.diagnostics.faults.scenarios import TEXT
from harness.live.curves import LiveMetrics
from harness.live.watch import LiveRun
from harness.report.records.runs import find_runs
from harness.runs import (
    blocks,
    certificate,
    checkpoint,
    config,
    digests,
    metrics,
    process,
    samples,
    summary,
    texts,
    token_nats,
)
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint, from_checkpoint
from harness.runs.folder import RunFolder
from harness.runs.load import load_run
from harness.runs.resume import changes_since, is_finished
from harness.runs.seal import seal
from harness.runs.summary import TextScore
from harness.runs.token_nats import TokenNats
from harness.training.guards import Guard
from harness.training.progress import Progress
from zoo_tokenizers import Tokenizer

TOKENS, SCORE = 50, "1 text 2.5 16"  # of losses that are kept
Damage = Callable[[bytes], st.SearchStrategy[bytes]]


@dataclass(frozen=True)
class Reader:
    """path: of the file that is damaged, in `folder`. read: what is called with the folder."""

    name: str
    folder: Path
    path: Path
    damage: Damage
    read: Callable[[Path], object]


def readers(run: Path, folder: Path) -> list[Reader]:
    """Of a finished run, to which losses of tokens are added, and of every tokenizer that can be
    had here (saved in `folder`)."""

    def reader(name: str, path: str, damage: Damage, read: Callable[[Path], object]) -> Reader:
        return Reader(name, run, Path(path), damage, read)

    token_nats.write(run, "val", TokenNats(np.ones(TOKENS), np.ones(TOKENS)), SCORE)
    texts.keep(run, run / "checkpoints", {"a": TextScore(bits_per_byte=2.0, sha256="0" * 64)})
    best = _newest(run, "best")
    vocab_size = len(np.load(run / "train_counts.npy"))
    return [
        reader("summary", summary.FILE, damaged_json, summary.read_summary),
        reader("rows", metrics.FILE, damaged_lines, _read_rows),
        reader("samples", samples.FILE, spliced, _read_samples),
        reader("configuration", config.FILE, damaged_yaml, _read_configuration),
        reader("test blocks", blocks.FILE, damaged_json, blocks.read),
        reader(
            "token counts",
            "train_counts.npy",
            spliced,
            lambda run: RunFolder(run).read_counts(vocab_size),
        ),
        reader("digests", digests.FILE, spliced, digests.complaints),
        reader("process", process.FILE, _damaged_process, process.is_alive),
        reader("checkpoint", f"checkpoints/{best}", _damaged_checkpoint, _load_checkpoints),
        reader("certificate", certificate.FILE, damaged_json, _read_certificate),
        reader("token losses", token_nats.FILES["val"], spliced, _read_token_losses),
        reader("further texts", texts.FILE, damaged_json, texts.read),
        reader("log", "train.log", spliced, _show_live),
        reader("live summary", summary.FILE, damaged_json, _show_live),
        reader("live rows", metrics.FILE, damaged_lines, _show_live),
        reader("live configuration", config.FILE, damaged_yaml, _show_live),
        reader("what is resumed or forked", summary.FILE, damaged_json, _go_on),
        reader("a record of a run", summary.FILE, damaged_json, _find),
        reader("a record of its rows", metrics.FILE, damaged_lines, _find),
        *tokenizer_readers(folder),
    ]


def tokenizer_readers(folder: Path) -> list[Reader]:
    found = []
    for name in ("char", "bpe", "sentencepiece", "gpt2", "bert"):
        settings = read_settings(compose([f"tokenizer={name}", f"cache={folder / 'cache'}"]))
        tokenizer = settings.build("tokenizer", Tokenizer)
        try:
            tokenizer.fetch(Assets.of(settings.assets, settings.cache))
        except UsageError:
            continue  # not in the asset path, and no network
        tokenizer.fit([TEXT])
        tokenizer.save(folder / name)
        read = functools.partial(_read_tokenizer, settings)
        for file in tokenizer.files():
            damage = damaged_json if file.endswith(".json") else spliced
            found.append(Reader(f"tokenizer {name}", folder / name, Path(file), damage, read))
    return found


def _read_tokenizer(settings: Settings, folder: Path) -> None:
    tokenizer = settings.build("tokenizer", Tokenizer)
    # Whoever changes a file changes its digest, too.
    digest = hashlib.sha256(type(tokenizer).__qualname__.encode())
    for path in sorted(folder.iterdir()):
        if path.name != "sha256.txt":
            content = path.read_bytes()
            digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    (folder / "sha256.txt").write_text(digest.hexdigest() + "\n")
    tokenizer.load(folder)
    tokenizer.decode(tokenizer.encode_known("green bottles")[0])


def _read_rows(run: Path) -> None:
    metrics.last_row(run / metrics.FILE)
    metrics.keep_before(run / metrics.FILE, 5)
    metrics.read(run / metrics.FILE)


def _read_samples(run: Path) -> None:
    samples.read(run / samples.FILE, 50)
    samples.keep_before(run / samples.FILE, 5)


def _read_configuration(run: Path) -> None:
    config.read_flat(run)
    load_settings(run / config.FILE)
    load_run(run, "best", "cpu", [])


def _read_certificate(run: Path) -> None:
    if (found := certificate.read(run)) is not None:
        certificate.why_unfit(found, run, summary.read_summary(run))
        found.sealed()


def _read_token_losses(run: Path) -> None:
    """As they are, and sealed anew: then they are believed."""
    token_nats.read(run, "val", TOKENS, SCORE)
    path = run / token_nats.FILES["val"]
    content = path.read_bytes()[token_nats.SEAL :]
    mark = seal(token_nats.to_seal("val", content, SCORE)) or ""
    path.write_bytes(mark.encode() + content)
    found = token_nats.read(run, "val", TOKENS, SCORE)
    if found is not None:
        token_nats.are_of(found, float(TOKENS))


def _show_live(run: Path) -> None:
    shown, rows = LiveRun(run), LiveMetrics(run / metrics.FILE)
    shown.look()
    shown.details()
    rows.read(seconds=1.0)
    for name in rows.names():
        rows.points(name, "step", 10, 0.0, 1e9)


def _go_on(run: Path) -> None:
    changes_since(RunFolder(run), summary.Summary(status="running", machine={"device": "cpu"}))
    is_finished(RunFolder(run), load_settings(run / config.FILE))


def _find(run: Path) -> object:
    return find_runs([run])


def _damaged_process(content: bytes) -> st.SearchStrategy[bytes]:
    return damaged_json(b'{"pid": 1, "began": "1", "system": "x"}')


def _damaged_checkpoint(content: bytes) -> st.SearchStrategy[bytes]:
    """Damaged as a file, or saved again with other values, the tensors included."""
    state = torch.load(io.BytesIO(content), weights_only=True)

    def saved(value: Any) -> bytes:
        file = io.BytesIO()
        torch.save(value, file)
        return file.getvalue()

    return spliced(content) | with_other_values(state).map(saved)


def _load_checkpoints(run: Path) -> None:
    for path in (run / "checkpoints").glob("*.pt"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")
    load_run(run, "best", "cpu", [])
    saved = checkpoint.load(run / "checkpoints", StepCheckpoint)
    if saved is not None:
        with checkpoint.restoring(run):
            from_checkpoint(Progress, saved.progress)
            from_checkpoint(Guard, saved.guard)
    checkpoint.load(run / "checkpoints", BestCheckpoint)


def _newest(run: Path, kind: str) -> str:
    return max(path.name for path in (run / "checkpoints").glob(f"{kind}-*.pt"))
