"""Certificates of several runs: on a CPU one on each core at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import torch

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import signals_for_this_process
from harness.common.parent import leave_with_parent
from harness.compute.device import Compute
from harness.compute.processor import MOST
from harness.referee.verify import verify_run
from harness.runs.certificate import Certificate

CONTEXT = get_context("spawn")  # torch's threads do not survive a fork

Outcome = Certificate | UsageError | RunFailure


def certify_each(
    folders: Sequence[Path],
    *,
    complete: bool,
    device: str,
    trust: list[str],
    data_path: Path | None = None,
) -> Iterator[Outcome]:
    """The certificate of each run, written into its folder, or why there is none; in the order of
    the folders. Raises RunFailure if a process is killed."""
    certify = partial(
        _certify, complete=complete, device=device, trust=trust, data_path=data_path
    )  # fmt: skip
    cores = _cores(device)
    workers = min(cores, len(folders), MOST)
    if workers < 2:
        yield from map(certify, folders)
        return
    pool = ProcessPoolExecutor(workers, CONTEXT, _begin, (cores // workers,))
    try:
        with signals_for_this_process():
            outcomes = [pool.submit(certify, folder) for folder in folders]
        for outcome in outcomes:
            yield outcome.result()
    except BaseException as error:  # a signal, too: nothing of the workers is to be saved
        with signals_for_this_process():  # a second one waits until they are told to end
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise RunFailure("a process that scored again was killed: no memory?") from error
        raise
    pool.shutdown()


def _cores(device: str) -> int:
    """1 where the device is no CPU."""
    return torch.get_num_threads() if Compute.choose(device, "fp32").device.type == "cpu" else 1


def _begin(threads: int) -> None:
    leave_with_parent()
    torch.set_num_threads(threads)


def _certify(
    folder: Path, *, complete: bool, device: str, trust: list[str], data_path: Path | None
) -> Outcome:
    try:
        found = verify_run(
            folder, complete=complete, device=device, trust=trust, data_path=data_path
        )
        found.write(folder)
    except (UsageError, RunFailure) as error:
        return error
    return found
