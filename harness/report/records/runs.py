"""Finds run folders and reads each into a record.

Reading never fails on a folder's content: a killed or damaged run becomes a record that says so,
and the comparison lists it.
"""

import logging
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.common.text import printable
from harness.runs import blocks, certificate, config, digests, metrics, samples, summary, texts
from harness.runs.blocks import Blocks
from harness.runs.certificate import Certificate, SequentialScore
from harness.runs.damage import DamageError
from harness.runs.find import run_folders
from harness.runs.metrics import Metrics
from harness.runs.samples import Sample
from harness.runs.summary import (
    DEFINITION,
    Ancestor,
    Compressed,
    LostText,
    MixedText,
    ParameterCount,
    Scored,
    Summary,
    TextScore,
    TrainCost,
    WithoutCopied,
    read_summary,
)

LOG = logging.getLogger("harness")
DAMAGED = "damaged"
UNKNOWN = "?"
SAMPLES_BYTES = 1 << 20  # from the end, for the last sample


@dataclass(frozen=True)
class RunRecord:
    """One run folder as read. Unknown numbers are None, unknown names UNKNOWN.

    status: of the summary, or DAMAGED. error: the run's own error, what it lacks, or what is
    damaged. corpus: SHA-256 of the text. uncertified: why the certificate does not let the score be
    ranked; None if it does. is_strangers: the certificate was not made here. complete: every token
    was scored again, fed one at a time; that is then `test`, or `val` where there is no test split
    (has_test). without_copied: that score without what train has, too. config: flat (dotted keys,
    values as text). blocks: they sum to the test score; None for older runs and lossy tokenizers.
    sample: the last one. state: how many numbers a model keeps that was counted in one pass over
    train; None for one that was trained. candidate, extended: as in `Summary`. lineage: of a fork,
    the runs it goes back to, oldest first. sees: its receptive field in tokens, infinite if it is
    unbounded. chance, cache_bytes: of a task, as in the summary. also: other texts, by their
    names; evaluated: those of `harness.evaluate --text`. mixed: of a mix, its texts. active:
    parameters without the experts that a token does not go through.
    """

    folder: Path
    status: str
    error: str | None = None
    model: str = UNKNOWN
    tokenizer: str = UNKNOWN
    data: str = UNKNOWN
    seed: float | None = None
    corpus: str = UNKNOWN
    lossless: bool = True
    lost: LostText | None = None
    leaks: bool = False
    causal: bool = True
    uncertified: str | None = None
    is_strangers: bool = False
    complete: bool = False
    parameters: float | None = None
    active: float | None = None
    state: float | None = None
    compressors: Mapping[str, Compressed] = field(default_factory=dict)
    flops_per_token: float | None = None
    cache_bytes: float | None = None
    chance: float | None = None
    sees: float | None = None
    train: TrainCost = field(default_factory=TrainCost)
    val: Scored | None = None
    test: Scored | None = None
    without_copied: WithoutCopied | None = None
    also: Mapping[str, Scored] = field(default_factory=dict)
    evaluated: Mapping[str, TextScore] = field(default_factory=dict)
    mixed: Mapping[str, MixedText] = field(default_factory=dict)
    has_test: bool = True
    config: Mapping[str, str] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=Metrics)
    blocks: Blocks | None = None
    sample: Sample | None = None
    candidate: bool = False
    lineage: Sequence[Ancestor] = ()
    extended: Sequence[float] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


def find_runs(paths: Iterable[Path]) -> list[RunRecord]:
    """Every run below the given folders, each once, ordered by folder. Says which of them have rows
    that are repeated, missing or out of order.

    Raises UsageError for a path that does not exist or holds no run.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such folder; give a run's folder or one that holds runs")
        said: list[str] = []
        found = list(run_folders(path, said.append))
        if not found:
            raise UsageError(
                f"{path}: no run here (no {summary.FILE} at any depth); "
                + ("; ".join(said) or "give a run's folder or one that holds runs")
            )
        for line in said:
            LOG.warning(line)
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    runs = [read_run(folders[resolved]) for resolved in sorted(folders)]
    for run in runs:
        if run.metrics.complaint:
            LOG.warning(f"{run.folder}: {run.metrics.complaint}")
        for line in digests.complaints(run.folder):
            LOG.warning(f"{run.folder}: {line}")
    return runs


def read_run(
    folder: Path,
    *,
    with_metrics: bool = True,
    with_config: bool = True,
    certified: Certificate | None = None,
) -> RunRecord:
    """Read one run folder. Damaged content ends up in `status` and `error`.

    with_metrics: also metrics.jsonl, which may be large. with_config: also config.yaml, which takes
    longer to parse than all the rest. certified: its certificate, if not the one in the folder.
    """
    damage: list[str] = []

    def read_or(default: Any, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except FileNotFoundError as error:
            damage.append(f"{Path(error.filename).name} is missing")
        except (DamageError, OSError) as error:
            damage.append(str(error))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            damage.append(f"unexpected content ({type(error).__name__}: {error})")
        return default

    found = read_or(None, lambda: read_summary(folder))
    finished = found is not None and found.status == "finished"

    def expected(name: str) -> bool:
        # An unfinished run may have been killed before it wrote the file.
        return finished or (folder / name).exists()

    is_strangers = False
    if certified is None:  # else it was made just now, maybe without a place for a key
        certified = read_or(None, lambda: certificate.read(folder))
        is_strangers = certified is not None and not certified.is_own
    record = RunRecord(
        folder=folder,
        status=found.status if found else DAMAGED,
        error=_error(found) if found else None,
        config=read_or({}, lambda: _configuration(folder, found))
        if with_config and expected(config.FILE)
        else {},
        metrics=read_or(Metrics(), lambda: metrics.read(folder / metrics.FILE))
        if with_metrics and expected(metrics.FILE)
        else Metrics(),
        blocks=read_or(None, lambda: _test_blocks(folder, found and found.test)),
        uncertified=read_or(None, lambda: _why_uncertified(certified, is_strangers, folder, found)),
        is_strangers=is_strangers,
        sample=_last_sample(folder),
        evaluated=read_or({}, lambda: {printable(k): v for k, v in texts.read(folder).items()}),
        **(read_or({}, lambda: _fields(found)) if found else {}),
    )
    if damage:
        return replace(record, status=DAMAGED, error="; ".join(damage))
    if certified is None or not certified.complete or record.uncertified is not None:
        return record
    return replace(_sequential(record, certified.score), complete=True)


def _sequential(run: RunRecord, found: SequentialScore | None) -> RunRecord:
    """The run with the score of tokens that were fed one at a time."""
    name = "test" if run.has_test else "val"
    score, blocks = getattr(run, name), run.blocks
    if found is None or score is None:
        return run
    own, anew = score.bits_per_byte, found.bits_per_byte
    if blocks is not None and own and anew is not None:
        blocks = replace(blocks, nats=tuple(nats * anew / own for nats in blocks.nats))
    scores = {"nats_per_token": found.nats_per_token, "bits_per_byte": anew}
    return replace(run, blocks=blocks, **{name: score.model_copy(update=scores)})


def require_complete(run: RunRecord) -> RunRecord:
    """The run, uncertified if its certificate is a sample."""
    if run.complete or run.uncertified is not None:
        return run
    anew = f"{_verify(run.folder)} --complete scores every token again"
    return replace(run, uncertified=f"its certificate is a sample; {anew}")


def _verify(folder: Path) -> str:
    return shlex.join(["python", "-m", "harness.verify", str(folder)])


def _error(found: Summary) -> str | None:
    """The run's error, or what it lacks."""
    missing = "; ".join(f"{part} ({why})" for part, why in (found.missing or {}).items())
    return found.error or (f"missing: {missing}" if missing else None)


def _fields(found: Summary) -> dict[str, Any]:
    corpus = found.corpus
    has_test = found.corpus is None or found.corpus.has_test
    parameters = found.parameters
    return {
        "model": found.model or UNKNOWN,
        "tokenizer": found.tokenizer or UNKNOWN,
        "data": found.data or UNKNOWN,
        "seed": found.seed,
        "corpus": (corpus and corpus.sha256) or UNKNOWN,
        "lossless": found.lossless is not False,
        "has_test": has_test,
        "lost": found.lost,
        "leaks": found.leaks is True,
        "causal": found.causal is not False,
        "parameters": parameters.total if parameters else None,
        "active": _active(parameters) if parameters else None,
        "state": parameters.state if parameters else None,
        "compressors": {printable(k): v for k, v in (found.compressors or {}).items()},
        "flops_per_token": found.flops_per_token,
        "cache_bytes": found.cache_bytes,
        "chance": found.corpus.chance if found.corpus else None,
        "sees": _sees(found),
        "train": found.train or TrainCost(),
        "val": found.val,
        "test": found.test,
        "without_copied": found.without_copied,
        "also": {printable(name): score for name, score in (found.also or {}).items()},
        "mixed": {printable(k): v for k, v in (corpus.mixed or {}).items()} if corpus else {},
        "candidate": found.candidate is True,
        "lineage": found.lineage or (),
        "extended": found.extended or (),
        "versions": _texts(found.versions),
        "git": _texts(found.git),
        "machine": _texts(found.machine),
    }


def _configuration(folder: Path, found: Summary | None) -> dict[str, str]:
    """The settings that tell configurations apart. Of a fork not where its parent lies, which is
    another run for each seed, but the parent's configuration and the step. Of an extended run where
    its budget changed. Of a stream its shards."""
    settings = config.read_flat(folder)
    settings.pop("fork_from", None)
    if found is not None and found.lineage:
        parent = found.lineage[-1]
        settings["fork_from"] = f"{(parent.configuration or UNKNOWN)[:8]}@{parent.step}"
    if found is not None and found.extended:
        settings["extended_at_step"] = ", ".join(map(str, found.extended))
    if found is not None and found.stream is not None:  # the corpus is its beginning alone
        settings["data.shards"] = found.stream.sha256[:8]
    return settings


def _active(found: ParameterCount) -> float | None:
    """Runs of earlier versions, which did not count it, have no experts of ours."""
    return found.total if found.active is None else found.active


def _sees(found: Summary) -> float | None:
    if found.parameters is None or "receptive_field" not in found.model_fields_set:
        return None  # it was not known yet
    return math.inf if found.receptive_field is None else found.receptive_field


def _why_uncertified(
    found: Certificate | None, is_strangers: bool, folder: Path, summary: Summary | None
) -> str | None:
    if summary is None:
        return None  # which is damage enough
    anew = f"{_verify(folder)} makes one"
    if found is None:
        return f"no certificate; {anew}"
    if is_strangers:
        return "its certificate was not made here"
    if unfit := certificate.why_unfit(found, folder, summary):
        return f"its certificate is for {unfit}; {anew}"
    if found.bound_to.definition != DEFINITION:
        return f"scored by definition {found.bound_to.definition}, not {DEFINITION}: evaluate anew"
    return found.words if found.failed else None


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: config.as_text(value) for key, value in (values or {}).items()}


def _last_sample(folder: Path) -> Sample | None:
    found = samples.read(folder / samples.FILE, SAMPLES_BYTES)
    return Sample(found[-1].step, printable(found[-1].text)) if found else None


def _test_blocks(folder: Path, test: Scored | None) -> Blocks | None:
    found = blocks.read(folder)
    if found is None or test is None or test.bits_per_byte is None or not test.bytes:
        return None  # an unfinished run may have blocks of an earlier test
    bits_per_byte = math.fsum(found.nats) / math.log(2) / test.bytes
    if not math.isclose(bits_per_byte, test.bits_per_byte, rel_tol=1e-5):
        raise DamageError(f"{blocks.FILE} does not add up to the test score of {summary.FILE}")
    return found
