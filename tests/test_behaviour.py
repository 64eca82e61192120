"""A change that should change nothing is compared with what was before: tests/behaviour."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .behaviour.cases import all_cases
from .behaviour.comparing import additions, differences, freeze, unlike_machines

ROOT = Path(__file__).resolve().parents[1]
FROZEN = Path(__file__).parent / "behaviour" / "frozen.json"
BASE = "BEHAVIOUR_BASE"  # a revision to compare with
SOURCES = ("conf", "harness", "tokenizers", "zoo")
SEEN_BY_MUTANTS = (
    r"^(step/clip|schedule/linear|mistake/model=gtp|mistake/sample run --checkpoint bset)$"
)
FEW = (
    rf"{SEEN_BY_MUTANTS}|^model/(gpt|lstm)$|^evaluate/streaming$|^(real/)?mistake/("
    r"train.stepz=3|seed=-1|optimizer.lr=nan|\+logger.local.api_key=1234|model._target_=os.system)$"
)


def record(checkout: Path, out: Path, only: str = "") -> dict[str, Any]:
    """By a process of its own, which has no threads yet."""
    command = [sys.executable, "-m", "tests.behaviour", "record", str(checkout), str(out)]
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    ended = subprocess.run(
        [*command, "--only", only], cwd=ROOT, env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A few cases of the working tree."""
    return record(ROOT, tmp_path_factory.mktemp("behaviour") / "few.json", FEW)


def frozen_for(found: dict[str, Any]) -> dict[str, Any]:
    """The frozen record, where its numbers can be asked for."""
    frozen: dict[str, Any] = json.loads(FROZEN.read_text(encoding="utf-8"))
    if unlike := unlike_machines(frozen, found):
        pytest.skip(f"frozen on another machine: {unlike}")
    return frozen


def test_a_few_cases_are_as_they_were_frozen(few: dict[str, Any]) -> None:
    frozen = frozen_for(few)
    frozen["cases"] = {
        name: parts for name, parts in frozen["cases"].items() if name in few["cases"]
    }
    assert list(differences(frozen, few)) == []


def test_a_fork_does_as_a_process_of_its_own(few: dict[str, Any]) -> None:
    cases = few["cases"]
    assert cases["real/mistake/train.stepz=3"] == cases["mistake/train.stepz=3"]


@pytest.mark.long
def test_all_cases_are_as_they_were(tmp_path: Path) -> None:
    """As at the revision that the environment names; else as they were frozen."""
    base = os.environ.get(BASE)
    found = record(ROOT, tmp_path / "now.json")
    for name in ("model/gpt", "mistake/train.stepz=3"):
        assert found["cases"][f"real/{name}"] == found["cases"][name]
    if base is None:
        before = frozen_for(found)
    else:
        other = tmp_path / "base"
        for command in (
            ("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(other)),
            ("-C", str(other), "checkout", "--quiet", "--detach", base),
        ):
            subprocess.run(["git", *command], check=True)
        before = record(other, tmp_path / "before.json")
    assert list(differences(before, found)) == []


MUTANTS = {
    # a factor a little off, as torch.nn.utils.clip_grad_norm_'s is by 1e-6
    "limit / wide": "limit / (wide + 1e-3)",
    # a schedule one step ahead
    "_above_floor(1 - self.progress(spent))": "_above_floor(1 - self.progress(spent + 1))",
    # a field less in the summary
    "self._summary.skipped_steps = guard.skipped": "pass",
    # another name offered, or none
    "(typed, names, n=1, cutoff=NEAR)": "(typed, names, n=2, cutoff=0.1)[1:]",
}


@pytest.mark.long
def test_seeded_changes_are_seen(few: dict[str, Any], tmp_path: Path) -> None:
    mutant = tmp_path / "mutant"
    for name in SOURCES:
        shutil.copytree(ROOT / name, mutant / name)
    sources = {path: path.read_text() for path in (mutant / "harness").rglob("*.py")}
    for before, after in MUTANTS.items():
        holders = [path for path, source in sources.items() if before in source]
        assert len(holders) == 1, f"to be changed in one module: {before}"
        sources[holders[0]] = sources[holders[0]].replace(before, after)
        holders[0].write_text(sources[holders[0]])
    found = record(mutant, tmp_path / "mutant.json", SEEN_BY_MUTANTS)
    base = copy.deepcopy(few)
    base["cases"] = {name: base["cases"][name] for name in found["cases"]}
    lines = "\n".join(differences(base, found))
    for line in (
        "step/clip: run/metrics.jsonl: train/loss: [",
        "schedule/linear: run/metrics.jsonl: lr: [",
        "step/clip: run/summary.json: skipped_steps: not there any more",
        "mistake/model=gtp: 1 train: nearest: ",
    ):
        assert line in lines, lines
    frozen = "\n".join(differences(freeze(base), found))
    for line in ("step/clip: run/metrics.jsonl: differs", "skipped_steps: not there any more"):
        assert line in frozen, frozen


# What is a difference, on records made by hand

REFUSED = {
    "code": 2, "one_line": True, "printed": [], "nearest": "train.steps",
    "names": ["train.steps", "train.stepz"], "choices": ["a", "b"],
}  # fmt: skip
RECORD = {
    "machine": {"torch": "2"},
    "cases": {
        "a": {"1 train": {"code": 0}, "run/metrics.jsonl": {"loss": ["0:0x1p+0", "1:0x1p-1"]}},
        "mistake/b": {"1 train": REFUSED},
    },
}
TRACE, ERROR = ("a", "run/metrics.jsonl", "loss"), ("mistake/b", "1 train")
CHANGES: dict[tuple[str, ...], Any] = {
    TRACE: ["0:0x1p+0", "1:0x1.0000000000001p-1"],
    ("a", "1 train", "code"): 1,
    (*ERROR, "code"): 0,
    (*ERROR, "one_line"): False,
    (*ERROR, "nearest"): "train.seq_len",
    (*ERROR, "names"): ["train.steps"],
    (*ERROR, "choices"): ["a"],
    ("mistake/b", "left.txt"): {},
}


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(RECORD)
    *above, last = ("cases", *path)
    node: Any = found
    for name in above:
        node = node[name]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return found


@pytest.mark.parametrize("before", [RECORD, freeze(RECORD)], ids=["whole", "frozen"])
def test_what_is_a_difference(before: dict[str, Any]) -> None:
    assert list(differences(before, RECORD)) == []
    for path, value in CHANGES.items():
        assert len(list(differences(before, changed(path, value)))) == 1, path
    for path in (("a",), ("a", "run/metrics.jsonl"), TRACE, ERROR, (*ERROR, "nearest")):
        lines = list(differences(before, changed(path, ...)))
        assert len(lines) == 1
        assert lines[0].endswith("not there any more")


@pytest.mark.parametrize("before", [RECORD, freeze(RECORD)], ids=["whole", "frozen"])
def test_more_is_no_difference(before: dict[str, Any]) -> None:
    for path, value in (
        (("new",), {}),
        (("a", "run/new.json"), {}),
        (("a", "run/metrics.jsonl", "new"), []),
        ((*ERROR, "names"), ["train", "train.steps", "train.stepz"]),
    ):
        more = changed(path, value)
        assert list(differences(before, more)) == []
        assert len(list(additions(before, more))) == (path[-1] != "names")


def test_every_file_has_a_case_and_every_case_a_name_of_its_own() -> None:
    names = [case.name for case in all_cases(ROOT)]
    assert len(names) == len(set(names))
    for group in ("model", "optimizer", "schedule", "tokenizer", "experiment"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"{group}/{path.stem}" in names
    assert sum(name.startswith("mistake/") for name in names) > 60
