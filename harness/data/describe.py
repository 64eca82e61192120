"""Statistics of an encoded corpus."""

from __future__ import annotations

import itertools
from time import perf_counter
from typing import Any

from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, build_tokenizer, prepare
from harness.data.encoded import PARTS, Split
from harness.data.overlap import LONG, MOST_SEARCHED, Overlap, overlap

SAMPLE = 1 << 22  # bytes of train that are encoded again, to measure speed and round trip
SHOWN = 5  # examples per row


def describe_data(settings: Settings) -> str:
    """Encode the corpus; returns its statistics as a table."""
    corpus = settings.build("data", Corpus)
    tokenizer = build_tokenizer(settings)
    dataset = prepare(corpus, tokenizer, Assets.of(settings.assets, settings.cache))
    name = dataset.name or settings.names.data
    return render(name, settings.names.tokenizer, describe(dataset))


def describe(dataset: Dataset) -> dict[str, Any]:
    """Statistics of the encoded corpus.

    seen: for 1, 10 and 100, the number of ids that occur less often than that in train. A model
    hardly learns them (the "glitch" tokens of Land & Bartolo 2024, arXiv 2405.05417).
    rare: the longest ids that occur fewer than 10 times. one_byte, partial: the shares of train's
    tokens that are a single byte, and that are not whole characters. overlap: what parts have in
    common.
    """
    tokenizer, counts, pieces = dataset.tokenizer, dataset.counts(), dataset.tokenizer.pieces
    used = counts.nonzero()[0].tolist()

    def longest(ids: list[int]) -> list[str]:
        chosen = sorted(ids, key=lambda id_: (-len(pieces[id_]), id_))[:SHOWN]
        return [_shown(pieces[id_]) for id_ in chosen]

    def share(holds: set[int]) -> float:
        return float(counts[sorted(holds)].sum() / counts.sum())

    seconds, size, exact = _encode_again(dataset)
    splits = {name: getattr(dataset, name) for name in PARTS}
    parts = {name: split for name, split in splits.items() if split is not None}
    lengths = [part.documents.lengths for part in parts.values() if part.documents is not None]
    longest_document = max((int(each.max()) - 1 for each in lengths if len(each)), default=None)
    return {
        "parts": {
            name: {
                "bytes": part.bytes,
                "tokens": len(part.ids),
                "bytes_per_token": part.bytes / max(1, len(part.ids)),
                "unknown": sum(part.unknown.values()),
                "documents": None if part.documents is None else len(part.documents),
            }
            for whole, split in parts.items()
            for name, part in ({whole: split} | _of_mix(whole, split)).items()
        },
        "longest_document": longest_document,
        "vocab_size": tokenizer.vocab_size,
        "stored_as": dataset.train.ids.dtype.name,
        "lossless": tokenizer.lossless,
        "leaks": tokenizer.leaks,
        "used": len(used),
        "seen": {limit: int((counts < limit).sum()) for limit in (1, 10, 100)},
        "rare": longest([id_ for id_ in used if counts[id_] < 10]),
        "longest": longest(used),
        "one_byte": share({id_ for id_ in used if len(pieces[id_]) == 1}),
        "partial": share({id_ for id_ in used if not _whole_characters(pieces[id_])}),
        "sampled_bytes": size,
        "exact": exact,
        "megabytes_per_second": size / seconds / 1e6,
        "overlap": _overlaps(dataset),
        "notes": dataset.notes(),
    }


def _of_mix(whole: str, split: Split) -> dict[str, Split]:
    return {f"{whole} {name}": text for name, text in split.texts.items()}


def render(data: str, tokenizer: str, found: dict[str, Any]) -> str:
    """The statistics as a table."""
    kind = f"{'lossless' if found['lossless'] else 'lossy'}{', LEAKS' if found['leaks'] else ''}"
    wide = max(8, *(len(name) + 1 for name in found["parts"]))
    lines = [
        f"{data} by {tokenizer}: {found['vocab_size']:,} ids ({found['stored_as']}), {kind}",
        f"{'':{wide}}{'bytes':>15}{'tokens':>15}{'bytes/token':>14}{'unknown':>10}",
    ]
    for name, part in found["parts"].items():
        lines.append(
            f"{name:{wide}}{part['bytes']:>15,}{part['tokens']:>15,}{part['bytes_per_token']:>14.3f}"
            f"{part['unknown']:>10,}"
        )
    if longest := found["longest_document"]:
        counts = ", ".join(f"{name} {part['documents']:,}" for name, part in found["parts"].items())
        lines.append(f"{'documents':17}{counts}; the longest of {longest:,} tokens and its end")
    size, limits = found["vocab_size"], found["seen"]
    way_back = "exact" if found["exact"] else "not exact"
    rows = {
        "used in train": f"{found['used']:,} of {size:,} ids ({found['used'] / size:.1%})",
        "longest": "  ".join(found["longest"]),
        **{
            "never seen" if limit == 1 else f"seen < {limit} times": f"{n:,} ids ({n / size:.1%})"
            for limit, n in limits.items()
        },
        "rare": "  ".join(found["rare"]) or "–",
        "single bytes": f"{found['one_byte']:.2%} of train's tokens",
        "half characters": f"{found['partial']:.2%} of train's tokens",
        "way back": f"{way_back} on {found['sampled_bytes']:,} bytes of train",
        "speed": f"{found['megabytes_per_second']:.1f} MB/s, one stream",
    }
    rows |= {name: _overlap_line(each) for name, each in found["overlap"].items()}
    lines += [f"{name:17}{value}" for name, value in rows.items()]
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _encode_again(dataset: Dataset) -> tuple[float, int, bool]:
    """Encode the start of train: seconds, bytes, and whether decoding restores the text."""
    tokenizer = dataset.tokenizer
    end = min(SAMPLE, dataset.train.bytes)
    text = "".join(dataset.text.strings(0, end))
    started = perf_counter()
    ids, _ = tokenizer.encode_known(text)
    seconds = perf_counter() - started
    return seconds, end, tokenizer.decode(ids) == text


def _overlaps(dataset: Dataset) -> dict[str, Overlap]:
    """By "test in train" and the like, for the parts that are there."""
    spans = {
        name: span
        for name, span in zip(PARTS, dataset.parts, strict=True)
        if getattr(dataset, name) is not None
    }
    pairs = itertools.combinations(spans, 2)
    return {
        f"{part} in {other}": overlap(dataset.text, spans[part], spans[other])
        for other, part in pairs
    }


def _overlap_line(found: Overlap) -> str:
    return (
        f"{found.copied:,} of {found.bytes:,} bytes ({found.copied / max(1, found.bytes):.2%}) in "
        f"passages of {LONG} bytes or more, the longest {found.longest:,}; {found.near:,} of "
        f"{found.blocks:,} blocks are near-duplicates"
        + (f"; looked for in {found.searched:,} bytes" if found.searched == MOST_SEARCHED else "")
    )


def _whole_characters(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(piece: bytes) -> str:
    return repr(piece.decode("utf-8", "replace"))
