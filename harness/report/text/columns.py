"""The columns of a comparison's table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.report.records.groups import (
    Group,
    Reader,
    Spread,
    has_experts,
    own_names,
    own_reader,
    reader,
    score_reader,
)
from harness.report.records.runs import RunRecord
from harness.report.records.selection import Split
from harness.report.statistics.floor import Reference
from harness.report.text.format import BESIDE, human, score, seconds

REFERENCES_NOTE = (
    "Compressors: bits of the test text given train, compress(train + test) − compress(train); in "
    "brackets how far back they look."
)
LOSSY_NOTE = "no bits per byte: the tokenizer is lossy, or the data are ids"
MEANS_NOTE = (
    "Mean ± sample standard deviation over seeds; costs are means. "
    "Test and validation scores are those of the best checkpoint's weights, "
    "or of the last where there is no validation split."
)


def has_copied(groups: Sequence[Group]) -> bool:
    """Whether a part of the text that these are compared on is in train, too."""
    runs = (run for group in groups for run in group.counted)
    return any(run.without_copied is not None and run.without_copied.copied for run in runs)


@dataclass(frozen=True)
class Column:
    """A column. read: a group's cell and its sort key."""

    header: str
    unit: str
    read: Callable[[Group], tuple[str, float | str]]
    is_text: bool = False


def columns(groups: Sequence[Group], *, lossy: bool) -> list[Column]:
    """The columns for these groups; tokenizer and data only where there are several."""
    found = [Column("model", "", lambda group: (_model_name(group), group.label), is_text=True)]
    if len({group.tokenizer for group in groups}) > 1 or lossy:
        found.append(_name("tokenizer"))
    if len({group.data for group in groups}) > 1:
        found.append(_name("data"))
    unit, key = ("nats/token", "nats_per_token") if lossy else ("bits/byte", "bits_per_byte")
    of_test, has = groups[0].split == "test", has_copied(groups)
    unseen = [_number("unseen", unit, f"without_copied.{key}", score)] if has else []
    return [
        *found,
        Column("seeds", "", lambda group: (str(len(group.counted)), len(group.counted))),
        *([_number("test", unit, f"test.{key}", score)] if of_test else []),
        *(unseen if of_test else []),
        _number("val", unit, f"val.{key}", score),
        *([] if of_test else unseen),
        *(
            _spread(name, groups[0].split, own_reader(groups[0].split, name), score)
            for name in own_names(groups, groups[0].split)
        ),
        Column("parameters", "", _size),
        *([_number("active", "parameters", "active")] if any(map(has_experts, groups)) else []),
        Column("sees", "tokens", _sees),
        _number("FLOPs", "per token", "flops_per_token"),
        Column("training", "tokens", _tokens),
        _number("training", "epochs", "train.epochs", lambda spread: f"{spread.mean:.3g}"),
        _number("training", "FLOPs", "train.flops"),
        _timed("training", "s", "train.seconds", lambda spread: seconds(spread.mean)),
        _timed("speed", "tokens/s", "train.tokens_per_second"),
        _number("peak memory", "bytes", "train.peak_memory_bytes"),
    ]


def _model_name(group: Group) -> str:
    return f"{group.model} ({group.variant})" if group.variant else group.model


def _name(header: str) -> Column:
    return Column(header, "", lambda group: (getattr(group, header),) * 2, is_text=True)


def _human_mean(spread: Spread) -> str:
    return human(spread.mean)


def _number(
    header: str, unit: str, path: str, write: Callable[[Spread], str] = _human_mean
) -> Column:
    return _spread(header, unit, reader(path), write)


def _spread(header: str, unit: str, read: Reader, write: Callable[[Spread], str]) -> Column:
    def cell(group: Group) -> tuple[str, float | str]:
        spread = group.spread(read)
        return (write(spread), spread.mean) if spread else ("–", "")

    return Column(header, unit, cell)


def _timed(
    header: str, unit: str, path: str, write: Callable[[Spread], str] = _human_mean
) -> Column:
    """Marked where other jobs shared the machine."""
    plain = _number(header, unit, path, write)

    def cell(group: Group) -> tuple[str, float | str]:
        text, key = plain.read(group)
        return text + BESIDE * (key != "" and group.beside > 0), key

    return Column(header, unit, cell)


def _sees(group: Group) -> tuple[str, float | str]:
    """How far back its predictions can look."""
    sees = group.counted[0].sees
    if sees is None:
        return "–", ""
    return "all before" if math.isinf(sees) else human(sees), sees


def _size(group: Group) -> tuple[str, float | str]:
    """Parameters; of a model that was counted its counts."""
    if group.is_floor and (spread := group.spread(reader("state"))):
        return f"{human(spread.mean)} counts", spread.mean
    return _number("parameters", "", "parameters").read(group)


def _tokens(group: Group) -> tuple[str, float | str]:
    text, key = _number("training", "tokens", "train.tokens").read(group)
    return "one pass" if group.is_floor else text, key


def reference_cells(reference: Reference, shown: Sequence[Column]) -> list[str]:
    """The cells of a compressor: its name, its data and its test score."""
    known = {
        "model": f"{reference.label} ({human(reference.window)}B)",
        "data": reference.data,
        "test": f"{reference.score:.3f}",
    }
    return [known.get(column.header, "–") for column in shown]


def ranks(groups: Sequence[Group]) -> list[int]:
    """Each group's rank on its data set, from 1."""
    before: Counter[str] = Counter()
    found = []
    for group in groups:
        before[group.data] += 1
        found.append(before[group.data])
    return found


def result(run: RunRecord, split: Split) -> str:
    """The score of one run with its unit; "" where it has none."""
    read = score_reader(split, run.lossless)
    number, unit = read(run), "bits/byte" if run.lossless else "nats/token"
    return "" if number is None else f"{number:.3f} {unit}"


def seed(run: RunRecord) -> str:
    return "?" if run.seed is None else f"{run.seed:g}"
