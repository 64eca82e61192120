"""What a command printed and left, as flat dictionaries whose values compare exactly."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .running import Ended

Part = dict[str, Any]
"""By name: a number (floats in hex), a text, true, false, null, or a list of these."""

# What no two runs or checkouts have in common; of these the type alone is kept.
VOLATILE = re.compile(
    r"(^|[./ ])((?:evaluation_)?seconds|tokens_per_second|peak_memory_bytes|__id__)( ±)?$"
    r"|^(machine|versions|git)\.|^assets$"
)
GROUPS = "train|model|optimizer|schedule|eval|data|tokenizer|checkpoint|observe|logger|names|hydra"
NAMED = re.compile(rf"(?<![\w.-])(?:--[a-z][a-z-]+|(?:{GROUPS})(?:\.[a-z_]+)+)")
NUMBER = re.compile(r"<?[-−+]?\d[\d,.]*(e[-+]?\d+)?( ?[kMGTP])?(?![\w-])")


def error(ended: Ended, line: str) -> Part:
    """Exit code, whether it is one line, which settings it names, and what it offers instead."""
    text = " ".join(ended.err.split())
    typed = {word.lstrip("+~").partition("=")[0] for word in line.split()[1:]} - {""}
    last = {word: re.escape(word.rpartition(".")[2]) for word in typed}
    words = {word for word in typed if re.search(rf"(?<![\w-]){last[word]}(?![\w-])", text)}
    choices = re.search(r"(?:Choices:|one of|has:) ((?:[\w-]+, )*[\w-]+)", text)
    nearest = re.search(r"Did you mean ([^?]+)\?", text)
    return {
        "code": ended.code,
        "one_line": text.startswith("error: ") and len(ended.err.splitlines()) == 1,
        "printed": shape(ended.out).splitlines(),
        "names": sorted(words | set(NAMED.findall(text))),
        "nearest": nearest[1] if nearest else None,
        "choices": choices[1].split(", ") if choices else [],
    }


def output(tool: str, ended: Ended, fields_only: bool) -> Part:
    """What a command that did its work printed on stdout."""
    if ended.out.startswith("{"):
        return {"code": ended.code} | dict(flat(json.loads(ended.out), fields_only))
    text = ended.out
    if tool == "prepare":
        text = re.sub(r"(?m)^speed .*$", "speed", text)
    if tool == "bench" and fields_only:  # names of rows
        text = re.sub(r"(?m)^ *(\S+( \S+)*)  .*$", r"\1", text)
    if tool == "compare" or fields_only or "\njob " in f"\n{ended.err}":  # with seconds
        text = shape(text)
    return {"code": ended.code, "printed": text.splitlines()}


def shape(text: str) -> str:
    """Without its numbers and widths."""
    return re.sub(r"[ ─━]+", " ", NUMBER.sub("#", text))


def composed(ended: Ended) -> Part:
    """What --cfg printed."""
    import yaml

    return {"code": ended.code} | dict(flat(yaml.safe_load(ended.out), False))


def files(folder: Path, known: set[Path], fields_only: bool) -> Iterator[tuple[str, Part]]:
    """Of each file: its name, and what is in it. known: files that were there before."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    newest = {(path.parent, path.name.partition("-")[0]): path for path in paths}
    for path in paths:
        if path.relative_to(folder) in known:
            continue
        name = path.relative_to(folder).as_posix()
        name = re.sub(r"events\.out\.tfevents.*", "events.out.tfevents", name)
        if fields_only:
            name = re.sub(r"\d{8}", "N", name)
        old = path.suffix == ".pt" and path.with_name(f"{path.name}.sha256") not in newest.values()
        yield name, {} if old else _file(path, fields_only)


def _file(path: Path, fields_only: bool) -> Part:
    import yaml

    kind = path.suffix
    if path.name == "metrics.jsonl":
        return dict(_columns(path, fields_only))
    if kind == ".json":
        return dict(flat(json.loads(path.read_text()), fields_only))
    if kind == ".yaml":
        return dict(flat(yaml.safe_load(path.read_text()), fields_only))
    if kind == ".pt":
        return dict(_checkpoint(path, fields_only))
    if kind == ".csv":
        return dict(_table(path))
    if kind == ".log":
        levels = re.findall(r"(?m)^[\d-]+ [\d:,]+ ([A-Z]+) ", path.read_text())
        return {} if fields_only else {level: levels.count(level) for level in set(levels)}
    if kind == ".md":
        return {"text": shape(path.read_text()).splitlines()}
    if kind == ".html":
        text = path.read_text()
        headings = re.findall(r"<h[1-3][^>]*>(.*?)</h[1-3]>", text, re.DOTALL)
        counts = {tag: text.count(f"<{tag}") for tag in ("table", "svg", "section")}
        return {"headings": [shape(re.sub(r"<[^>]+>", "", each)) for each in headings]} | counts
    if fields_only or kind in (".svg", ".png", ".sha256") or "tfevents" in path.name:
        return {}
    if path.name == "samples.txt":
        return {"text": path.read_text("utf-8", "surrogateescape").splitlines()}
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def flat(value: Any, fields_only: bool, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by their dotted keys. Lists of numbers stay lists."""
    if isinstance(value, dict):
        if not value:
            yield name, "{}"
        for key, inner in value.items():
            yield from flat(inner, fields_only, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for position, inner in enumerate(value):
            yield from flat(inner, fields_only, f"{name}[{position}]")
    elif fields_only or VOLATILE.search(name):
        yield name, f"<{type(value).__name__}>"
    elif name.endswith("_target_") and isinstance(value, str):
        yield name, value.rpartition(".")[2]  # the class stays, its module may move
    else:
        yield name, [exact(inner) for inner in value] if isinstance(value, list) else exact(value)


def exact(value: Any) -> Any:
    return value.hex() if isinstance(value, float) else value


def _columns(path: Path, fields_only: bool) -> Iterator[tuple[str, Any]]:
    """Each metric's trace: STEP:VALUE, …"""
    traces: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            shown = "" if VOLATILE.search(name) else exact(value)
            traces.setdefault(name, []).append(f"{row['step']}:{shown}")
    for name, trace in traces.items():
        yield name, "<trace>" if fields_only else trace


def _checkpoint(path: Path, fields_only: bool) -> Iterator[tuple[str, Any]]:
    """Names, types and shapes, and a digest of the tensors of the model and of the optimizer."""
    import torch

    digests: dict[str, Any] = {}

    def walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(value, torch.Tensor):
            top = name.partition(".")[0]
            raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            digests.setdefault(top, hashlib.sha256()).update(name.encode() + raw)
            yield name, f"<{value.dtype} {tuple(value.shape)}>"
        else:
            yield name, f"<{type(value).__name__}>"

    yield from walk(torch.load(path, weights_only=True), "")
    if not fields_only:
        for top in ("model", "optimizer"):
            if top in digests:
                yield f"sha256 of {top}", digests[top].hexdigest()


def _table(path: Path) -> Iterator[tuple[str, Any]]:
    """Each column's cells."""
    header, *rows = csv.reader(io.StringIO(path.read_text()))
    for position, name in enumerate(header):
        cells = [row[position] for row in rows]
        yield name, len(cells) if VOLATILE.search(name) else cells
