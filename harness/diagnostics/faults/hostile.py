"""Run folders as an attacker would send them: a whole run, of which one thing is changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

Change = Callable[[Path, Path], object]
"""Changes one file of a run: its path, and a folder outside that must stay as it is."""

FILES = (
    *("config.yaml", "summary.json", "metrics.jsonl", "samples.txt", "test_nats.json"),
    *("train_counts.npy", "train.log", "process.json", "tokenizer/characters.txt"),
    *("tokenizer/sha256.txt", "checkpoints/best", "checkpoints/best.sha256", "checkpoints/step"),
    *("checkpoints", "tokenizer", "certificate.json", "digests.sha256"),
)
PRIVATE = "private.txt"


def sign(path: Path) -> None:
    """A digest proves no good will."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")


def find(run: Path, name: str) -> Path:
    """The path of one of FILES; of the newest checkpoint of a kind."""
    if not name.startswith("checkpoints/"):
        return run / name
    kind, _, suffix = name.removeprefix("checkpoints/").partition(".")
    newest = max((run / "checkpoints").glob(f"{kind}-*.pt"))
    return newest.with_name(f"{newest.name}.{suffix}") if suffix else newest


def remove(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return path


def moved_out(path: Path, outside: Path) -> None:
    """A link to the same content elsewhere."""
    place = outside / f"moved-{path.name}"
    if path.exists():
        shutil.move(path, place)
    path.symlink_to(place)


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, suppress(OSError):  # too long a name
        here = os.open(path.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def device_at(path: Path) -> None:
    with suppress(PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


def write(content: bytes) -> Change:
    return lambda path, outside: remove(path).write_bytes(content)


def sparse(path: Path, outside: Path) -> None:
    with remove(path).open("wb") as file:
        file.truncate(1 << 40)


def hard_linked(path: Path, outside: Path) -> None:
    if path.is_file():
        os.link(path, outside / f"linked-{path.name}")


ANY: dict[str, Change] = {
    "a link to its own content": moved_out,
    "a link to a private file": lambda path, outside: remove(path).symlink_to(outside / PRIVATE),
    "a link to a private folder": lambda path, outside: remove(path).symlink_to(outside),
    "a link to what is not there": lambda path, out: remove(path).symlink_to(out / "new.txt"),
    "a link to itself": lambda path, outside: remove(path).symlink_to(path.name),
    "a link to a device": lambda path, outside: remove(path).symlink_to("/dev/zero"),
    "a hard link": hard_linked,
    "a pipe": lambda path, outside: os.mkfifo(remove(path)),
    "a socket": lambda path, outside: socket_at(remove(path)),
    "a device": lambda path, outside: device_at(remove(path)),
    "a folder": lambda path, outside: remove(path).mkdir(),
    "a sparse file of a terabyte": sparse,
    "missing": lambda path, outside: remove(path),
    "empty": write(b""),
    "zeros": write(bytes(1 << 20)),
    "noise": write(random.Random(1).randbytes(1 << 16)),
    "UTF-16": write('{"status": "finished"}\n'.encode("utf-16")),
    "lone surrogates": write(b'{"status": "\xed\xa0\x80"}\n'),
    "deep": write(b"[" * 100_000 + b"]" * 100_000 + b"\n"),
    "deep, as YAML": write(b"a:\n" + b"".join(b" " * n + b"- \n" for n in range(1, 600))),
    "a null": write(b"null\n"),
    "one long line": write(b'{"step": 1, "x": "' + b"x" * (10 << 20)),
}


def edit_yaml(**changes: Any) -> Change:
    def change(run: Path, outside: Path) -> None:
        path = run / "config.yaml"
        saved = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            *groups, last = key.split("__")
            node = saved
            for group in groups:
                node = node[group]
            is_text = isinstance(value, str)
            node[last] = value.replace("{outside}", str(outside)) if is_text else value
        path.write_text(yaml.safe_dump(saved))

    return change


def edit_json(name: str, **changes: Any) -> Change:
    def change(run: Path, outside: Path) -> None:
        saved = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(saved | changes))

    return change


def replace(name: str, content: str) -> Change:
    return lambda run, outside: (run / name).write_text(content)


def append(name: str, content: str) -> Change:
    return lambda run, outside: (run / name).write_text((run / name).read_text() + content)


def edit_checkpoint(kind: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Signed again: nothing but its content gives it away."""

    def edit(run: Path, outside: Path) -> None:
        path = find(run, f"checkpoints/{kind}")
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
        sign(path)

    return edit


def both(*changes: Change) -> Change:
    return lambda run, outside: [change(run, outside) for change in changes]


def sized(**model: Any) -> Change:
    """A size that the configuration and both checkpoints agree on."""
    named = {f"model__{name}": value for name, value in model.items()}
    told = [
        edit_checkpoint(kind, lambda state: state["settings"]["model"].update(model))
        for kind in ("best", "step")
    ]
    return both(edit_yaml(**named), *told)


def compressed(run: Path, outside: Path) -> None:
    """A gigabyte of zeros in a megabyte."""
    path = find(run, "checkpoints/best")
    with zipfile.ZipFile(path) as old:
        contents = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in contents.items():
            new.writestr(name, bytes(1 << 28) if "/data/" in name else content)
    sign(path)


def large_counts(run: Path, outside: Path) -> None:
    """A header that asks for 8 TB."""
    buffer = io.BytesIO()
    header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    (run / "train_counts.npy").write_bytes(buffer.getvalue())


def many_tokenizer_files(run: Path, outside: Path) -> None:
    for number in range(3000):
        (run / "tokenizer" / f"{number}.txt").write_text("x")


def leftovers_outside(run: Path, outside: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (outside / ".x.zoo-0123abcd").write_text("x")
    (run / "checkpoints").symlink_to(outside)


LAUGHS = "\n".join(
    ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
)


def nested(depth: int) -> list[Any]:
    """2^depth lists, of which a pickle holds `depth`."""
    node: list[Any] = []
    for _ in range(depth):
        node = [node, node]
    return node


def endless() -> list[Any]:
    node: list[Any] = []
    node.append(node)
    return node


ADDRESS = {
    "_target_": "harness.data.corpus.Download",
    "file": "x.txt",
    "url": "http://127.0.0.1:9/x",
    "sha256": "0" * 64,
    "split": [0.8, 0.1, 0.1],
}

SPECIAL: dict[str, Change] = {
    "n_embd of a million": sized(n_embd=1_000_000),
    "n_embd of 2^40": sized(n_embd=1 << 40),
    "n_layer of a billion": sized(n_layer=10**9),
    "block_size of 2^40": sized(block_size=1 << 40),
    "negative sizes": sized(n_embd=-16),
    "a model in a list": sized(n_embd=[1, 2]),
    "YAML aliases": replace("config.yaml", LAUGHS),
    "a number of a million digits in YAML": append("config.yaml", f"\nseed2: {'9' * 200_000}\n"),
    "ten thousand keys in YAML": append("config.yaml", "".join(f"\nk{n}: 1" for n in range(10**4))),
    "a tag in YAML": append("config.yaml", "\nx: !!python/object/apply:os.system ['touch x']\n"),
    "YAML that never ends": append("config.yaml", "\nx: {" + "a: {" * 50_000),
    "an interpolation": edit_yaml(eval__prompt="${oc.env:HOME}"),
    "a broken interpolation": edit_yaml(eval__prompt="${${"),
    "text that is a pipe": both(
        lambda run, outside: os.mkfifo(outside / "pipe"),
        edit_yaml(data__path="{outside}/pipe"),
    ),
    "text that is a device": edit_yaml(data__path="/dev/zero"),
    "text that is private": edit_yaml(data__path="{outside}/private.txt"),
    "text with a NUL in its name": edit_yaml(data__path="a\0b"),
    "an address": edit_yaml(data=ADDRESS),
    "another class": edit_yaml(model___target_="os.system"),
    "a cache elsewhere": edit_yaml(cache="{outside}/cache"),
    "a key with control characters": edit_yaml(model={"_target_": "zoo.gpt.GPT", "a\x1b\nb": 1}),
    "another logger": edit_yaml(logger__wandb={"_target_": "harness.loggers.wandb.WandB"}),
    "a batch size of 2^60": edit_yaml(eval__batch_size=1 << 60),
    "a number of a million digits": replace("summary.json", f'{{"seed": {"9" * 10**6}}}'),
    "a number of 4,000 digits": replace(
        "summary.json", f'{{"status": "finished", "seed": {"9" * 4000}}}'
    ),
    "1e999": replace("summary.json", '{"status": "finished", "seed": 1e999}'),
    "-0.0 and 1e308": edit_json("summary.json", seed=-0.0, flops_per_token=1e308),
    "a hundred thousand keys": edit_json("summary.json", **{f"k{n}": n for n in range(10**5)}),
    "versions of any kind": edit_json("summary.json", versions={"a": [1e308, {"b": None}]}),
    "a status in a list": edit_json("summary.json", status=["finished"]),
    "names with control characters": edit_json("summary.json", model="\x1b[2J", data="=1+1"),
    "rows of other keys": append("metrics.jsonl", '{"step": 31, "a\\u001b\\nb": 1}\n'),
    "a row of a million keys": append(
        "metrics.jsonl",
        json.dumps({"step": 31} | {f"k{n}": 1 for n in range(10**5)}) + "\n",
    ),
    "rows of huge numbers": append("metrics.jsonl", f'{{"step": 31, "train/loss": {"9" * 400}}}\n'),
    "a step of 2^70": append("metrics.jsonl", f'{{"step": {1 << 70}, "train/loss": 1.0}}\n'),
    "rows of many evaluations": append(
        "metrics.jsonl", '{"step": 1, "val/bits_per_byte": 1, "val/nats_per_token": 1}\n' * 200_000
    ),
    "positions that are none": append(
        "metrics.jsonl", '{"step": 31, "val/loss_by_position/x": 1, "updates/a/log10_ratio": 2}\n'
    ),
    "blocks of huge numbers": edit_json("test_nats.json", nats=[1e308, 1e308], bytes=10**30),
    "ten thousand samples": append("samples.txt", "=== step 1 ===\n\n\n" * 10_000),
    "a process of another": edit_json("summary.json", status="running"),
    "a compressed checkpoint": compressed,
    "counts of 8 TB": large_counts,
    "many tokenizer files": many_tokenizer_files,
    "another tokenizer": lambda run, outside: (run / "tokenizer/characters.txt").write_text("xyz"),
    "weights of stride 0": edit_checkpoint(
        "best", lambda state: state["model"].update(x=torch.zeros(1).expand(1 << 40))
    ),
    "settings that share": edit_checkpoint(
        "best", lambda state: state["settings"].update(x=nested(40))
    ),
    "settings without an end": edit_checkpoint(
        "step", lambda state: state["settings"].update(x=endless())
    ),
    "a guard of another kind": edit_checkpoint("step", lambda state: state.update(guard={"x": 1})),
    "a step of 2^62": edit_checkpoint("step", lambda state: state.update(step=1 << 62)),
    "a newer checkpoint": lambda run, outside: shutil.copy(
        find(run, "checkpoints/step"), run / "checkpoints" / "step-99999999.pt"
    ),
    "leftovers behind a link": leftovers_outside,
    "modules in the folder": lambda run, outside: (run / "yaml.py").write_text("1 / 0\n"),
}


def names() -> list[str]:
    """Of all the folders that `make` can make."""
    return [*(f"{name}: {change}" for name in FILES for change in ANY), *SPECIAL]


def make(name: str, run: Path, folder: Path, outside: Path) -> None:
    """A copy of the run, changed. outside: gets a private file, and what the change needs."""
    outside.mkdir()
    (outside / PRIVATE).write_text("private\n" * 100)
    shutil.copytree(run, folder)
    (folder / "process.json").write_text(
        json.dumps({"pid": 1, "began": "1", "system": "x", "inode": 1})
    )
    if name in SPECIAL:
        SPECIAL[name](folder, outside)
    else:
        file, _, change = name.partition(": ")
        ANY[change](find(folder, file), outside)


def snapshot(folder: Path) -> Iterator[tuple[str, object]]:
    """What lies in a folder, so that a later change is seen."""
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
        yield str(path.relative_to(folder)), (status.st_mode, status.st_mtime_ns, content)
