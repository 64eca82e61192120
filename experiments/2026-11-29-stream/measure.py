"""What a stream costs: python measure.py [rates] [tokens] [steps] TEXT

rates: of one lane, by format and tokenizer. steps: of the 0.8 M GPT, what each spends on its rows,
and what the processes that read spend. tokens: encoding into token shards by one and by two
processes, and one lane that reads these.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from harness.cli.hydra_app import compose
from harness.config.settings import Settings, read_settings
from harness.data.lane import Lane
from harness.data.write_tokens import write_tokens
from harness.training.run import load_dataset, run
from harness.training.streamed_rows import StreamedRows

SHARDS, COPIES, STEPS, WARM_UP = 4, 2, 100, 20
MANY = 10  # copies, where starting a process should not count
TEXT = Path(sys.argv[-1])


def documents(shard: int, copies: int) -> list[str]:
    """Pieces of the text, 2.5 kB each, so many times, numbered."""
    text = TEXT.read_text()
    size = 2500
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [f"{shard}.{copy}.{piece}" for copy in range(copies) for piece in pieces]


def write_lines(path: Path, texts: list[str]) -> None:
    path.write_text("".join(text.replace("\n", " ") + "\n" for text in texts))


def write_json(path: Path, texts: list[str]) -> None:
    with gzip.open(path, "wt", compresslevel=6) if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def write_csv(path: Path, texts: list[str]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])


def write_parquet(path: Path, texts: list[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": texts}), path, compression="zstd")


FORMATS: dict[str, Callable[[Path, list[str]], None]] = {
    ".txt": write_lines,
    ".jsonl": write_json,
    ".jsonl.gz": write_json,
    ".csv": write_csv,
    ".parquet": write_parquet,
}


def shards(folder: Path, kind: str, copies: int = COPIES) -> Path:
    place = folder / f"{kind.strip('.')}{copies}"
    place.mkdir()
    for number in range(SHARDS):
        FORMATS[kind](place / f"{number}{kind}", documents(number, copies))
    return place


def chosen(folder: Path, path: Path, *more: str) -> Settings:
    given = [
        "data=stream", f"data.path={path}", "data.first_bytes=200000",
        "data.split=[1.0,0.0,0.0]", "model=gpt", "device=cpu", "precision=fp32",
        f"cache={folder / 'cache'}", "eval.every=100000", "eval.sample_tokens=0", *more,
    ]  # fmt: skip
    return read_settings(compose(given))


def rate(settings: Settings) -> tuple[float, float]:
    """Megabytes of text and thousands of tokens, of one lane, a second of its processor."""
    dataset = load_dataset(settings)
    assert dataset.shards is not None
    lane = Lane(dataset.shards, dataset.tokenizer, 0, 0, 1, 1024, 1025, 1024, dataset.held_out())
    blocks = lane.blocks(lane.start)
    next(blocks)
    started, tokens, size = process_time(), 0, 0
    token_bytes = dataset.tokenizer.token_bytes
    while (seconds := process_time() - started) < 1.5:
        _, rows = next(blocks)
        tokens += rows[:, 1:].size
        size += int(token_bytes[rows[:, 1:]].sum())
    return size / seconds / 1e6, tokens / seconds / 1e3


def tokens(folder: Path, place: Path, tokenizer: str) -> None:
    """Print how fast token shards are written and read."""
    given = (f"tokenizer={tokenizer}", "data.first_bytes=200000")
    load_dataset(chosen(folder, place, *given))  # what it learns is in the cache
    size = sum(len(text.encode()) for shard in range(SHARDS) for text in documents(shard, MANY))
    for workers in (1, 2):
        started = perf_counter(), sum(os.times()[:4])
        write_tokens(chosen(folder, place, *given), folder / f"{tokenizer}{workers}", workers)
        clock, processor = perf_counter() - started[0], sum(os.times()[:4]) - started[1]
        print(
            f"{tokenizer:8}{workers} processes: {size / clock / 1e6:6.1f} MB/s by the clock, "
            f"{size / processor / 1e6:6.1f} by their processors"
        )
    out = folder / f"{tokenizer}1"
    stored = sum(path.stat().st_size for path in out.glob("*.tokens"))
    found, text = (rate(chosen(folder, each, *given))[0] for each in (out, place))
    print(f"{tokenizer:8}a lane of these {found:.0f} MB/s, of the text {text:.1f}")
    print(f"{tokenizer:8}stored: {stored / size:.2f} bytes for a byte of text")


def processor_seconds(rows: StreamedRows) -> float:
    """Of the processes that read, so far."""
    ticks = 0
    for reader in rows._readers.values():
        fields = (
            Path(f"/proc/{reader._child.process.pid}/stat").read_text().rpartition(")")[2].split()
        )
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def steps(settings: Settings) -> dict[str, float]:
    """Of a step after WARM_UP: the median milliseconds; and the shares of all steps, of the time of
    the clock and of this process's processor, that it spends on its rows, and of the processor,
    that the processes which read spend."""
    batch = StreamedRows.batch
    began: list[tuple[float, float]] = []
    took: list[tuple[float, float]] = []
    read: list[float] = []

    def now() -> tuple[float, float]:
        return perf_counter(), process_time()

    def timed(rows: StreamedRows, count: int) -> Any:
        began.append(now())
        found = batch(rows, count)
        took.append(between(began[-1], now()))
        if len(took) in (WARM_UP, STEPS):
            read.append(processor_seconds(rows))
        return found

    StreamedRows.batch = timed  # type: ignore[method-assign]
    try:
        assert run(settings) == 0
    finally:
        StreamedRows.batch = batch  # type: ignore[method-assign]
    whole = [between(*pair) for pair in pairwise(began)][WARM_UP:]
    clock, processor = (sum(each) for each in zip(*whole, strict=True))
    own_clock, own_processor = (sum(each) for each in zip(*took[WARM_UP:-1], strict=True))
    return {
        "ms of a step": 1e3 * median(each for each, _ in whole),
        "of its processor": 1e3 * median(each for _, each in whole),
        "of the clock %": 100 * own_clock / clock,
        "medians, of the clock %": 100
        * median(each for each, _ in took[WARM_UP:-1])
        / median(each for each, _ in whole),
        "of the processor %": 100 * own_processor / processor,
        "readers %": 100 * (read[1] - read[0]) / processor,
    }


def between(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return end[0] - start[0], end[1] - start[1]


def main() -> None:
    what = sys.argv[1:-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "rates" in what:
            for kind in FORMATS:
                place = shards(folder, kind)
                for tokenizer in ("bytes", "char", "bpe", "gpt2"):
                    found = rate(chosen(folder, place, f"tokenizer={tokenizer}"))
                    print(f"{kind:10}{tokenizer:8}{found[0]:7.2f} MB/s {found[1]:8.0f} k tokens/s")
        if "tokens" in what:
            place = shards(folder, ".jsonl.gz", MANY)
            for tokenizer in ("char", "gpt2"):
                tokens(folder, place, tokenizer)
        if "steps" in what:
            place = folder / f"jsonl.gz{COPIES}"
            place = place if place.exists() else shards(folder, ".jsonl.gz")
            for number, tokenizer in enumerate(("char", "bpe", "gpt2")):
                settings = chosen(
                    folder, place, f"tokenizer={tokenizer}", f"train.steps={STEPS}",
                    "data.rows=across", "data.buffer=128", f"run_dir={folder / str(number)}",
                )  # fmt: skip
                figures = "  ".join(f"{key} {each:.3g}" for key, each in steps(settings).items())
                print(f"{tokenizer:8}{figures}")


if __name__ == "__main__":
    main()
