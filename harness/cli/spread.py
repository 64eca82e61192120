"""The jobs of a sweep spread over devices (`sweep.devices`): a process for each job, as many at a
time as there are devices.

    python -m harness.cli.spread FOLDER NUMBER AT_ONCE SETTINGS… < CONFIGURATION      # one of them
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from omegaconf import DictConfig, OmegaConf

from harness.cli import loader as _resolvers  # noqa: F401  a configuration refers to them
from harness.cli.tool import run_tool
from harness.common.errors import UsageError
from harness.common.interrupt import STOPPED
from harness.config.settings import require_device

VISIBLE = "CUDA_VISIBLE_DEVICES"
PARENT = "ZOO_SWEEP_PARENT"  # the process that a job leaves with


def install() -> None:
    """Let the sweeps of this process be spread. Hydra has no option for another launcher that
    needs no plugin."""
    BasicLauncher.launch = _launch  # type: ignore[method-assign]


_one_after_another = BasicLauncher.launch


def _launch(
    self: BasicLauncher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
) -> Sequence[JobReturn]:
    assert self.config is not None
    assert self.hydra_context is not None
    devices = devices_of(self.config)
    if len(devices) < 2:
        return _one_after_another(self, job_overrides, initial_job_idx)
    loader, master = self.hydra_context.config_loader, self.config
    jobs = [list(overrides) for overrides in job_overrides]
    configs = [pickle.dumps(loader.load_sweep_config(master, job)) for job in jobs]
    print(f"{len(jobs)} jobs, {len(devices)} at a time: {', '.join(devices)}", file=sys.stderr)
    folder = Path(master.hydra.sweep.dir)
    codes = spread(
        [[str(folder), str(number), str(len(devices)), *job] for number, job in enumerate(jobs)],
        configs,
        devices,
    )
    return [
        JobReturn(overrides=job, status=JobStatus.COMPLETED, _return_value=code)
        for job, code in zip(jobs, codes, strict=True)
    ]


def devices_of(config: DictConfig) -> list[str]:
    """What `sweep.devices` means here: auto is all NVIDIA GPUs of this machine. Raises
    UsageError."""
    named: Any = OmegaConf.to_container(config.sweep)["devices"]  # type: ignore[index,call-overload]
    if named is None:
        return []
    if named == "auto":
        import torch

        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise UsageError(
            f"sweep.devices={named} should be auto, or a list of devices, one for each job at a "
            "time: [cuda:0,cuda:1]"
        )
    for device in named:
        require_device("sweep.devices", device)
    return list(named)


def spread(
    jobs: Sequence[list[str]], configs: Sequence[bytes], devices: Sequence[str]
) -> list[int]:
    """Run every job in a process of its own, which sees one device alone; returns their exit codes.
    If this process is stopped, or one of them is, all save and leave.

    jobs: the arguments of each process. configs: what it reads.
    """
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)
    running: set[subprocess.Popen[bytes]] = set()
    stopped: list[int] = []

    def run(number: int) -> int:
        device = free.get()
        try:
            if stopped:
                return stopped[0]
            command = [sys.executable, "-m", "harness.cli.spread", *jobs[number]]
            environment = os.environ | _visible(device) | {PARENT: str(os.getpid())}
            with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
                running.add(process)
                process.communicate(configs[number])
                running.discard(process)
            code = process.returncode
        finally:
            free.put(device)
        if code in STOPPED:
            stop(code)
        return code

    def stop(code: int) -> None:
        stopped.append(code)
        for process in list(running):
            process.terminate()

    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            codes = list(pool.map(run, range(len(jobs))))
        except BaseException:  # a signal
            stop(1)
            raise
    if stopped:
        sys.exit(stopped[0])
    return codes


def _visible(device: str) -> dict[str, str]:
    """The variables of a process that is to see one device alone. Its settings are then those of
    the job, whichever device is free."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return {VISIBLE: ""}
    if kind != "cuda":
        return {}
    seen = [each for each in os.environ.get(VISIBLE, "").split(",") if each]
    return {VISIBLE: seen[int(number or 0)] if seen else number or "0"}


def _job() -> int:
    folder, number, at_once, *overrides = sys.argv[1:]
    # From the process that started this one: YAML would lose the types that Hydra asks for.
    cfg: DictConfig = pickle.load(sys.stdin.buffer)
    setup_globals()
    HydraConfig.instance().set_config(cfg)

    from harness.training.sweep_jobs import run_job

    return run_job(cfg, Path(folder), int(number), overrides, beside=int(at_once))


if __name__ == "__main__":
    run_tool(_job)
