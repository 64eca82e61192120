"""One life of a command: `python -m MODULE …` in a fork of this process, which has imported the
libraries already."""

from __future__ import annotations

import importlib
import os
import resource
import runpy
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

TIME_LIMIT = 600.0  # seconds; what takes longer hangs: on a busy machine a life of 2 takes 120
PRELOADED = (
    *("torch._dynamo", "torch.optim", "hydra.main", "tqdm.contrib.logging"),
    *("hydra._internal.core_plugins.basic_sweeper", "hydra._internal.core_plugins.basic_launcher"),
    *("harness.training.run", "harness.training.sweep_jobs", "harness.cli.hydra_app"),
    *("harness.runs.resume", "harness.report.outputs", "harness.evaluation.evaluate_run"),
    *("harness.report.calibrate", "harness.sampling.sample_run"),
)


@dataclass(frozen=True)
class Life:
    """How a process ended. code: the exit code, the negative number of a signal, or None if it hung
    and was killed. output: of both streams. peak_bytes: of memory."""

    code: int | None
    output: str
    peak_bytes: int

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def last_line(self) -> str:
        return (self.output.strip().splitlines() or [""])[-1]


def preload() -> None:
    """Import what every life needs, once. The process must not start threads before it forks."""
    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())  # its default is a semaphore that a kill would leak
    torch.set_num_threads(1)
    for name in PRELOADED:
        importlib.import_module(name)


def live(
    argv: Sequence[str],
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    time_limit: float = TIME_LIMIT,
) -> Life:
    """Run `python -m argv[0] …` in a fork. before, after: called there, around the command."""

    def work() -> None:
        before()
        try:
            run_command(argv)
        finally:
            after()

    return forked(work, time_limit)


def run_command(argv: Sequence[str]) -> None:
    """`python -m argv[0] …`, in this process. Raises SystemExit."""
    sys.argv = [f"{argv[0].rpartition('.')[2]}.py", *argv[1:]]
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


def limit_memory(gigabytes: float) -> None:
    """From now on this process may have so much more than it has. For a fork."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def forked(work: Callable[[], None], time_limit: float = TIME_LIMIT) -> Life:
    """Run a function in a fork, in a process group of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    output, inner = os.pipe()
    pid = os.fork()
    if pid == 0:
        _be(work, inner)
    os.close(inner)
    try:
        return _watch(pid, output, time_limit)
    except BaseException:  # a signal to this process
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(output)


def _be(work: Callable[[], None], output: int) -> None:
    """The child's part: never returns."""
    code = 1
    try:
        os.setsid()
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        # Streams of its own: whoever forked may have replaced them.
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(pid: int, output: int, time_limit: float) -> Life:
    deadline, parts, hung = time.monotonic() + time_limit, list[bytes](), False
    while True:
        if select.select([output], [], [], 0.002)[0]:
            parts.append(os.read(output, 1 << 16))
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            hung = True
            os.kill(pid, signal.SIGKILL)
    while select.select([output], [], [], 0)[0] and (part := os.read(output, 1 << 16)):
        parts.append(part)
    code = None if hung else os.waitstatus_to_exitcode(status)
    return Life(code, b"".join(parts).decode(errors="replace"), used.ru_maxrss * 1024)
