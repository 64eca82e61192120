"""Run a checkout's commands, each in a process forked from one that has imported torch already.

Nothing of the harness is imported here: what runs is the checkout's own, whatever its modules are.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import os
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SECRET = "hush-4f9a1c77e2"
LONGEST = 600  # seconds until a command counts as hanging
# What the commands import from outside the checkout. None of them starts a thread.
IMPORTED = (
    *("torch", "torch._dynamo", "torch.utils.flop_counter", "numpy", "hydra", "omegaconf", "yaml"),
    *("hydra._internal.core_plugins.basic_launcher", "hydra.experimental.callback"),
    *("hydra._internal.core_plugins.basic_sweeper", "omegaconf._impl", "rich.table", "tqdm"),
    *("sentencepiece", "tiktoken", "tokenizers", "transformers", "torch.utils.serialization"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Runner:
    """Runs commands of one checkout."""

    def __init__(self, checkout: Path, cache: Path) -> None:
        self.checkout = checkout
        self.paths = [str(checkout), str(checkout / "tokenizers")]
        # For this process, too, before it imports torch, and so for all that are forked from it.
        os.environ.update(
            {
                "OMP_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "XDG_CACHE_HOME": str(cache),
                "XDG_STATE_HOME": str(cache),
                "PYTHONPATH": os.pathsep.join(self.paths),
                "PYTHONUTF8": "1",
                "A_TOKEN": SECRET,
            }
        )

    def import_all(self) -> None:
        """Once, before the first fork."""
        assert "torch" not in sys.modules, "the number of its threads would not be ours to set"
        for name in IMPORTED:
            with suppress(ModuleNotFoundError):
                importlib.import_module(name)
        threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").is_dir() else 1
        assert threads == 1, "a process with threads must not be forked"
        gc.collect()
        gc.freeze()

    def run(self, line: str, folder: Path, real: bool = False) -> Ended:
        """`python -m harness.LINE` in that folder; real: by a Python of its own."""
        tool, *arguments = shlex.split(line)
        outputs = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
        if real:
            command = [sys.executable, "-m", f"harness.{tool}", *arguments]
            with outputs[0].open("wb") as out, outputs[1].open("wb") as err:
                code = subprocess.run(
                    command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                    timeout=LONGEST,
                ).returncode  # fmt: skip
        else:
            child = os.fork()
            if child == 0:
                self._become(f"harness.{tool}", arguments, folder, outputs)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [path.read_text("utf-8", "replace") for path in outputs]
        for path in outputs:
            path.unlink()
        return Ended(code, *texts)

    def _become(
        self, module: str, arguments: list[str], folder: Path, outputs: list[Path]
    ) -> NoReturn:
        """Be that command, in a process just forked, and end as a Python ends."""
        code = 1
        try:
            for number, path in enumerate((Path(os.devnull), *outputs)):
                flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                os.dup2(os.open(path, flags), number)
            sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", closefd=False)
            signal.alarm(LONGEST)
            os.chdir(folder)
            sys.path[:] = [str(folder), *self.paths, *sys.path[1:]]
            found = importlib.util.find_spec("harness")
            if found is None or not str(found.origin).startswith(self.paths[0] + os.sep):
                raise RuntimeError(f"the harness found is not the checkout's: {found}")
            sys.argv = [module, *arguments]
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def machine() -> dict[str, str]:
    """What decides the bits beside the code: equal numbers are owed only where all of it is.

    Matrix products choose their kernels by the instructions a processor has, and their blocks by
    its caches, so that the name of the widest instructions alone is not enough.
    """
    import hashlib
    import platform

    import numpy
    import torch

    words: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            words.setdefault(name.strip(), value.strip())
    flags = hashlib.sha256(words.get("flags", "").encode()).hexdigest()[:12]
    parts = ("model name", "cpu family", "model", "stepping", "cache size")
    return {
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libc": "-".join(platform.libc_ver()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cpu": ", ".join(words.get(part, "?") for part in parts),
        "cpu_flags": flags,
    }
