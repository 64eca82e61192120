"""Run every case of a checkout and keep what came of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

from . import reading
from .cases import Case, all_cases
from .running import Runner, machine

AT_A_TIME = 2
TEXT = "".join(
    f"{number} green bottles, hanging on the wall; and if {number % 7} should fall… \n"
    for number in range(120)
)


def record(checkout: Path, only: str = "") -> dict[str, Any]:
    """{"machine": …, "cases": {case: {part: {name: value}}}}; only: a pattern of cases' names."""
    checkout = checkout.resolve()
    cases = all_cases(checkout)
    wanted = {case.name for case in cases if re.search(only, case.name)}
    wanted |= {case.needs for case in cases if case.name in wanted and case.needs}
    cases = [case for case in cases if case.name in wanted]
    # Not a TemporaryDirectory: each fork would remove it as it ends.
    work = Path(tempfile.mkdtemp(prefix="behaviour-")).resolve()
    try:
        (work / "text.txt").write_text(TEXT, encoding="utf-8")
        runner = Runner(checkout, work / "cache")
        runner.import_all()
        found = _run_all(cases, runner, work)
    finally:
        shutil.rmtree(work)
    return {"machine": machine(), "cases": found}


def _run_all(cases: list[Case], runner: Runner, work: Path) -> dict[str, Any]:
    """A forked process for each case, a few at a time; a case waits for the one it needs."""
    folders = {case.name: work / f"{number:04}" for number, case in enumerate(cases)}
    waiting, running, done = deque(cases), dict[int, Case](), dict[str, Any]()
    started = time.monotonic()
    while waiting or running:
        ready = next((c for c in waiting if c.needs is None or c.needs in done), None)
        if ready is not None and len(running) < AT_A_TIME:
            waiting.remove(ready)
            child = os.fork()
            if child == 0:
                _be_case(ready, runner, folders)
            running[child] = ready
            continue
        child, status = os.wait()
        case = running.pop(child)
        result = folders[case.name].with_suffix(".json")
        if status or not result.exists():
            raise RuntimeError(f"case {case.name} could not be recorded; see above")
        done[case.name] = json.loads(result.read_text())
        _say(case, done, len(cases), time.monotonic() - started)
    return {case.name: done[case.name] for case in cases}


def _say(case: Case, done: dict[str, Any], total: int, seconds: float) -> None:
    rate = len(done) / seconds
    left = f"{len(done)}/{total}  {rate:.1f} cases/s  {(total - len(done)) / rate:.0f} s left"
    end = "\n" if len(done) == total or not sys.stderr.isatty() else "\x1b[K\r"
    if sys.stderr.isatty() or len(done) % 20 == 0 or len(done) == total:
        print(f"{left}  {case.name[:50]}", end=end, file=sys.stderr, flush=True)


def _be_case(case: Case, runner: Runner, folders: dict[str, Path]) -> None:
    """Run the case, and leave what is recorded of it as JSON beside its folder."""
    code = 1
    try:
        folder = folders[case.name]
        if case.needs is not None:
            shutil.copytree(folders[case.needs], folder)
        folder.mkdir(exist_ok=True)
        parts = json.dumps(_parts(case, runner, folder), ensure_ascii=False)
        # Earlier revisions stored the text's path as it was typed.
        text = folder.parent / "text.txt"
        shown = {
            text: "../text.txt",
            folder: "HERE",
            folder.parent: "WORK",
            runner.checkout: "REPO",
        }
        for path, name in shown.items():
            parts = parts.replace(str(path), name)
        folder.with_suffix(".json").write_text(parts, encoding="utf-8", errors="surrogateescape")
        code = 0
    except BaseException:
        print(f"case {case.name}:", file=sys.stderr)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _parts(case: Case, runner: Runner, folder: Path) -> dict[str, reading.Part]:
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    parts: dict[str, reading.Part] = {}
    for number, line in enumerate(case.commands, 1):
        ended = runner.run(line, folder, case.real)
        failed = ended.code != 0 and "error: " in ended.err
        if case.is_mistake != failed and not case.name.startswith(("end/", "sweep/", "real/")):
            print(f"{case.name}: {line}: exit code {ended.code}: {ended.err}", file=sys.stderr)
        if failed:
            part = reading.error(ended, line)
        elif "--cfg" in line:
            part = reading.composed(ended)
        else:
            part = reading.output(line.split()[0], ended, case.fields_only)
        parts[f"{number} {line.split()[0]}"] = part
    parts |= reading.files(folder, before, case.fields_only)
    return parts
