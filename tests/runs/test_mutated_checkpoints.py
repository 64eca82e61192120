"""A checkpoint changed in two hundred ways, its digest made to match: a resume ends in one line, or
as if nothing had been changed."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runs.tampering import Command, sign

MUTANTS = 200
SAME = "the same values"
TENSORS: dict[str, Callable[[Tensor], object]] = {
    SAME: lambda x: torch.stack([x, x], dim=-1)[..., 0],  # in another order, of a shared memory
    "nothing": lambda x: None,
    "a number": lambda x: 1.0,
    "in a list": lambda x: [x],
    "other dtype": lambda x: x.to(torch.int16),
    "double": lambda x: x.to(torch.float64),
    "complex": lambda x: x.to(torch.complex64),
    "one axis more": lambda x: x[None],
    "half": lambda x: x.flatten()[: x.numel() // 2],
    "turned": lambda x: x.reshape(x.shape[::-1]) if x.dim() == 2 else x[None],
    "stride 0": lambda x: torch.zeros(1).expand(x.shape or (2,)),
    "huge": lambda x: torch.zeros(1).expand(2**40),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "NaN": lambda x: torch.full_like(x, torch.nan),
    "infinite": lambda x: torch.full_like(x, -torch.inf),
}
PLAIN: dict[str, Callable[[Any], object]] = {
    "nothing": lambda x: None,
    "a word": lambda x: "x",
    "negative": lambda x: -1,
    "NaN": lambda x: torch.nan,
    "infinite": lambda x: torch.inf,
    "huge": lambda x: 10**400,
    "a list": lambda x: [x],
    "a tensor": lambda x: torch.zeros(2),
}
NESTS: dict[str, Callable[[Any], object]] = {
    "nothing": lambda x: None,
    "empty": lambda x: type(x)(),
    "a word": lambda x: "x",
    "in a list": lambda x: [x],
    "longer": lambda x: [*x, *x] if isinstance(x, list) else x | {"more": 1},
    "shorter": lambda x: x[1:] if isinstance(x, list) else dict(list(x.items())[1:]),
    "renamed": lambda x: {f"{k}_": v for k, v in x.items()} if isinstance(x, dict) else [x, x],
}


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a nest."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def mutated(whole: dict[str, Any], seed: int) -> tuple[dict[str, Any], str, bool]:
    """A mutant, what was done to it, and whether it is as good as the original."""
    choice, contents = random.Random(seed), copy.deepcopy(whole)
    part = choice.choice([*contents])
    found = [place for place in places(contents) if place[1] == part and place[0] is contents]
    if isinstance(contents[part], dict | list):
        found += places(contents[part])
    node, key = choice.choice(found)
    value = node[key]
    kind = TENSORS if isinstance(value, Tensor) else NESTS
    if not isinstance(value, Tensor | dict | list):
        kind = PLAIN
    how = choice.choice([*kind, "gone"])
    if how == "gone":
        del node[key]
    else:
        node[key] = kind[how](value)
    return contents, f"{part}: {key} {how}", how == SAME


@pytest.mark.long
def test_two_hundred_mutants(command: Command, finished_run: Path, tmp_path: Path) -> None:
    def resumed(contents: dict[str, Any] | None) -> tuple[Any, list[dict[str, Any]], str]:
        copied = Path(shutil.copytree(finished_run, tmp_path / "copied"))
        if contents is not None:
            path = max((copied / "checkpoints").glob("step-*.pt"))
            torch.save(contents, path)
            sign(path)
        ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=32")
        lines = (copied / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"seconds": 0} for line in lines]
        log = ended.err + (copied / "train.log").read_text()
        shutil.rmtree(copied)
        return ended, rows, log

    newest = max((finished_run / "checkpoints").glob("step-*.pt"))
    whole = torch.load(newest, weights_only=True)
    expected, trace, _ = resumed(None)
    assert expected.code == 0
    refused = 0
    for seed in range(MUTANTS):
        contents, what, same = mutated(whole, seed)
        ended, rows, log = resumed(contents)
        what = f"mutant {seed}, {what}: {ended.err}"
        assert "Traceback" not in log, what
        assert ended.code in ((0,) if same else (0, 1, 2)), what
        if ended.code:
            assert len([x for x in ended.err.splitlines() if x.startswith("error")]) == 1, what
            refused += 1
        elif same:
            assert rows == trace, what
    assert refused > MUTANTS / 2
