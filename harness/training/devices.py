"""Several jobs of a sweep at the same time: each in a process of its own, one on each device.

A process trains one job: what the libraries keep of it would be in the next one's peak memory.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import active_children, connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import cast

import torch

from harness.common.errors import UsageError
from harness.common.interrupt import INTERRUPTED, STOPPED, signals_for_this_process
from harness.common.parent import leave_with_parent
from harness.compute.device import Compute
from harness.compute.processor import MOST
from harness.config.settings import require_device

CONTEXT = get_context("spawn")  # a fork could not use a GPU that this process has touched


@dataclass(frozen=True)
class Place:
    """Where a job is trained. device: in place of `settings.device`, so that the job is the same
    wherever it is trained; None: there. beside: how many others may be trained at the same time."""

    device: str | None = None
    beside: int = 0


ALONE = Place()
Job = Callable[[Place], int]
"""Trains, and returns the exit code. For another process, so it can be pickled."""


def named_devices(devices: int | str | Sequence[str] | None, device: str) -> list[str]:
    """`sweep.devices` by their names, one for each job at a time; none for null. device: of the
    jobs' own settings.

    cores: a job on each core of a CPU, at most MOST. A single core, or a device that is none, has
    one job after another. Raises UsageError for a device that is not here, and for several kinds of
    them: they would not compute the same, nor perhaps in the same precision.
    """
    if devices is None:
        return []
    if devices == "cores":
        cores = min(torch.get_num_threads(), MOST) if _here(device) == "cpu" else 1
        return cores * ["cpu"] if cores > 1 else []
    if isinstance(devices, int):
        return devices * [_here(device)]
    if devices == "auto":
        found = [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu"]
    else:
        found = [_here(name) for name in ([devices] if isinstance(devices, str) else devices)]
    kinds = {name.partition(":")[0] for name in found}
    if len(kinds) != 1 or len(set(found)) < len(found):
        listed = ",".join(found)
        raise UsageError(f"sweep.devices=[{listed}] should be different devices of one kind")
    if device != "auto" and found != [_here(device)]:
        raise UsageError(f"device={device} and sweep.devices={devices}: leave one out")
    return found


def _here(name: str) -> str:
    require_device("sweep.devices", name)
    return str(Compute.choose(name, "fp32").device)


@dataclass
class _Worker:
    """A process that trains a job. code: what its exit code comes through."""

    process: BaseProcess
    code: Connection
    name: str  # of the job


class Devices:
    """names: of the devices, for one job at a time each. jobs: how many there are to train. go_on:
    said if this process ends before them.

    However it ends, but by SIGKILL, its jobs are told to save and stop, and waited for. (After
    SIGKILL they notice by themselves: harness.common.parent.)
    """

    def __init__(self, names: Sequence[str], jobs: int, go_on: str) -> None:
        self._places = list(names[: max(1, jobs)])
        # Jobs on the CPU share its cores.
        sharing = max(1, self._places.count("cpu"))
        self._threads = max(1, torch.get_num_threads() // sharing)
        self._free = [*range(len(self._places))]
        self._workers: dict[int, _Worker] = {}
        self._jobs, self._ended, self._go_on = jobs, 0, go_on
        # Not atexit's: before that multiprocessing waits for all processes, whatever they do.
        self._at_exit = Finalize(None, self._stop, exitpriority=1)

    def start(self, name: str, job: Job) -> None:
        """Wait for a free device, and begin to train the job there."""
        while not self._free:
            self._wait()
        number = self._free.pop(0)
        self._workers[number] = self._worker(number, name, job)
        print(f"{name} on {self._places[number]}", file=sys.stderr)

    def finish(self) -> None:
        """Wait for all."""
        while len(self._free) < len(self._places):
            self._wait()
        self._at_exit.cancel()

    def _worker(self, number: int, name: str, job: Job) -> _Worker:
        ours, its = CONTEXT.Pipe()
        place = Place(self._places[number], len(self._places) - 1)
        process = CONTEXT.Process(target=_train, args=(its, job, place, self._threads))
        with signals_for_this_process():
            process.start()
        its.close()  # so that the end of the process is that of the pipe
        return _Worker(process, ours, name)

    def _wait(self) -> None:
        """Until a job has ended."""
        busy = {worker.code: number for number, worker in self._workers.items()}
        for each in connection.wait([*busy]):
            number = busy[cast(Connection, each)]
            worker = self._workers.pop(number)
            code = None
            with suppress(EOFError, OSError):  # its process is gone
                code = worker.code.recv()
            worker.process.join()
            code = (worker.process.exitcode or 1) if code is None else code
            worker.code.close()
            self._free.append(number)
            self._ended += 1
            print(
                f"{worker.name} on {self._places[number]}: {_words(code)}; "
                f"{self._ended} of {self._jobs} jobs have ended",
                file=sys.stderr,
            )

    def _stop(self) -> None:
        children = active_children()  # also one that is not known here yet
        for process in children:
            process.terminate()
        for worker in self._workers.values():
            worker.code.close()
        print(self._go_on, file=sys.stderr)
        try:
            for process in children:
                process.join()
        except KeyboardInterrupt:
            os._exit(INTERRUPTED)


def _train(code: Connection, job: Job, place: Place, threads: int) -> None:
    leave_with_parent()
    torch.set_num_threads(threads)
    if place.device is not None and place.device.startswith("cuda:"):
        torch.cuda.set_device(place.device)  # nothing of this job's is to be put on another's
    ended = job(place)
    with suppress(OSError):  # nobody is there any more
        code.send(ended)


def _words(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code in STOPPED:
        return "stopped, its work saved"
    return "failed" if code else "finished"


_in_use: Devices | None = None


def use(devices: Devices | None) -> None:
    """Where the jobs of this process's sweep are trained from now on; None: in this process. Hydra
    hands nothing from the beginning of a sweep to its jobs."""
    global _in_use
    _in_use = devices


def in_use() -> Devices | None:
    """What `use` said."""
    return _in_use
