"""A decoder in a process of its own, which can open neither the text nor the network.

It reads the run's folder and code; then it can open nothing any more, and gets the text token by
token through a pipe.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from harness.common.errors import RunFailure
from harness.config.build import build_object
from harness.config.keys import Node
from harness.config.settings import Settings
from zoo_tokenizers import Tokenizer, WholeTexts

if TYPE_CHECKING:
    from harness.referee.decoder import Decoder

CODE = {".py", ".pyc", ".so", ".pth", ".dylib", ".yaml", ".toml"}
SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/System", "/Library")


@dataclass(frozen=True)
class Source:
    """What a process loads. threads: of torch, as in the process that asks."""

    run: Path
    which: str
    device: str
    trust: list[str]
    precision: str | None
    threads: int


class Forbidden(PermissionError):
    """The model's code asked for what it must not read."""


@contextmanager
def fresh_decoder(source: Source) -> Iterator[Decoder]:
    """Raises RunFailure with what goes wrong in the process."""
    with _process(_serve, source) as remote:
        remote.answer()  # it is loaded
        yield cast("Decoder", remote)


def learnt_again(run: Path, settings: Settings, train: Iterable[str]) -> str:
    """The digest of the tokenizer that learns from this text alone, in a process that can't open
    the whole. Raises RunFailure with what goes wrong in it."""
    texts = WholeTexts([*train]) if isinstance(train, WholeTexts) else [*train]
    with _process(_learn, run, settings.tokenizer, settings.trust, texts) as remote:
        return str(remote.answer())


@contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[_Remote]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Remote(ours)
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.kill()


class _Remote:
    """Calls the decoder's methods through the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            with suppress(ConnectionError):  # `answer` tells
                self._connection.send((name, arguments))
            return self.answer()

        return call

    def answer(self) -> Any:
        try:
            is_error, value = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RunFailure("the process that scores again died") from None
        if is_error:
            raise RunFailure(value)
        return value


def _serve(connection: Connection, source: Source) -> None:
    import torch

    from harness.compute.device import make_deterministic
    from harness.referee.decoder import LocalDecoder
    from harness.runs.load import load_run

    try:
        torch.set_num_threads(source.threads)
        guard(source.run)
        run = load_run(source.run, source.which, source.device, source.trust, source.precision)
        make_deterministic()
        warnings.simplefilter("ignore")
        decoder = LocalDecoder(run.model, run.compute)
        decoder.feed(np.zeros(1, np.int64), np.zeros(1, np.int64))  # loads what torch loads late
        decoder.carry(np.zeros(2, np.int64))
        decoder.start(1)
        close_all_doors()
        connection.send((False, None))
        while True:
            try:
                name, arguments = connection.recv()
            except EOFError:
                break
            connection.send((False, getattr(decoder, name)(*arguments)))
    except Exception as error:
        with suppress(OSError):  # nobody asks any more
            connection.send((True, f"{type(error).__name__}: {' '.join(str(error).split())}"))
    os._exit(0)  # what would run at exit can open nothing any more


def _learn(
    connection: Connection, run: Path, node: Node, trust: list[str], train: Iterable[str]
) -> None:
    try:
        guard(run)
        tokenizer: Tokenizer = build_object(node, Tokenizer, "tokenizer", trust)
        tokenizer.fit(train)
        connection.send((False, tokenizer.digest))
    except Exception as error:
        connection.send((True, f"{type(error).__name__}: {' '.join(str(error).split())}"))


def guard(run: Path) -> None:
    """From now on this process may read code and the run's folder, and reach no network. It can't
    be undone."""
    tempfile.gettempdir()  # found by writing there, which modules of torch that come later would do
    roots = [sys.prefix, sys.base_prefix, str(run.resolve()), *SYSTEM]
    allowed = tuple(os.path.realpath(root) + os.sep for root in roots)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen"):
            raise Forbidden(f"the model's code asks for {event} while it is scored again")
        if event in ("resource.setrlimit", "resource.prlimit") and closed:
            raise Forbidden("the model's code asks for more than it is given")
        if event != "open" or not isinstance(arguments[0], (str, bytes)):
            return
        name = os.fsdecode(arguments[0])
        if os.sep not in name and not os.path.exists(name):
            return  # by a descriptor of its folder, as we read a run's folder
        path = os.path.realpath(name)
        if not f"{path}{os.sep}".startswith(allowed) and Path(path).suffix not in CODE:
            raise Forbidden(f"the model's code opens {path} while it is scored again")

    closed = _CLOSED
    sys.addaudithook(hook)


_CLOSED: list[bool] = []


def close_all_doors() -> None:
    """From now on this process can open no file and no socket at all."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _CLOSED.append(True)
