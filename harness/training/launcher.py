"""What torch's launcher told this process, and the meeting of all processes before they train."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from harness.common.errors import RunFailure, UsageError
from harness.config.settings import Role, Settings, keys_with_role
from harness.data.dataset import Dataset
from harness.loggers.flat import flat_settings
from harness.runs.folder import versions

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
ADDRESS = ("MASTER_ADDR", "MASTER_PORT")
SHARED = ("harness", "zoo", "zoo_tokenizers")  # the packages whose code decides the numbers
# What each process may have its own of.
OWN = keys_with_role(Role.FROM_USER) | {"run_dir", "device", "data.path", "names.data", "logger"}
PATIENCE = 600.0  # seconds that processes wait for each other to start
FIRST_WORD = 5.0  # seconds until it is said for whom


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """rank, world_size, local_rank and address, as the launcher set them; empty without a launcher.
    Raises UsageError if the variables contradict each other."""
    given = {name: environment[name] for name in (*RANKS, *ADDRESS) if name in environment}
    if not given.keys() & set(RANKS):  # an address alone does nothing
        return {}

    def number(name: str, least: int, below: int, why: str) -> int:
        if name not in given:
            raise refusal(f"{name} is not set")
        text = given[name]
        if not (text.isdecimal() and text.isascii() and len(text) < 10):
            raise refusal(f"{name} should be a whole number")
        if not least <= int(text) < below:
            raise refusal(f"{name} should be {why}")
        return int(text)

    def refusal(reason: str) -> UsageError:
        shown = " ".join(f"{name}={given[name]!r:.40}" for name in given)
        return UsageError(
            f"the launcher's variables don't fit together: {reason} ({shown}); start all processes "
            f"by torch's launcher, or unset {', '.join(given)}"
        )

    size = number("WORLD_SIZE", 1, 10**9, "at least 1")
    rank = number("RANK", 0, size, "below WORLD_SIZE")
    local = number("LOCAL_RANK", 0, rank + 1, "at most RANK") if "LOCAL_RANK" in given else 0
    if size == 1:
        return {"local_rank": local}
    if not given.get("MASTER_ADDR", "").strip():
        raise refusal("MASTER_ADDR is not set")
    address = (given["MASTER_ADDR"].strip(), number("MASTER_PORT", 1, 2**16, "a port"))
    return {"rank": rank, "world_size": size, "local_rank": local, "address": address}


def identity(settings: Settings, dataset: Dataset, device: torch.device) -> dict[str, Any]:
    """What must be equal in all processes, lest they train something that none describes."""
    return {
        "code": _code(),
        **{f"version of {name}": number for name, number in versions().items()},
        "corpus": dataset.digest,
        "tokenizer": dataset.tokenizer.digest,
        "shards": dataset.shards and dataset.shards.sha256,
        "kind of device": device.type,
        "number of threads": torch.get_num_threads(),
        **{
            key: value
            for key, value in flat_settings(settings).items()
            if not any(key == own or key.startswith(f"{own}.") for own in OWN)
        },
    }


def meet(rank: int, world_size: int, address: tuple[str, int], own: Mapping[str, Any]) -> Store:
    """Wait until all processes are there, saying for whom; returns the store that they share.

    own: this one's `identity`. Raises UsageError, in all of them, if they differ; RunFailure if
    some do not come.
    """
    store = _connect(rank, world_size, address)
    try:
        if store.add(f"{rank}/processes", 1) > 1:
            raise UsageError(f"two processes have RANK={rank}")
        store.set(f"{rank}/identity", json.dumps({"WORLD_SIZE": world_size, **own}, default=str))
        _wait(
            lambda: _missing(store, "identity", world_size),
            lambda ranks: f"{len(ranks)} of {world_size} processes (RANK {_listed(ranks)})",
        )
        identities = [json.loads(store.get(f"{each}/identity")) for each in range(world_size)]
        if line := difference(identities):
            store.set(f"{rank}/seen", "")
            if rank == 0:  # the store goes with it
                _wait(lambda: _missing(store, "seen", world_size), _listed, 10.0)
            raise UsageError(line)
    except RuntimeError as error:
        raise _unreachable(world_size, address, error) from error
    return store


def difference(identities: list[dict[str, Any]]) -> str | None:
    """One line that names all in which the processes differ from rank 0; None if they are equal."""
    first = identities[0]
    found = []
    for name in dict.fromkeys(name for each in identities for name in each):
        values = [each.get(name) for each in identities]
        other = next((rank for rank, value in enumerate(values) if value != first.get(name)), None)
        if other is not None:
            found.append(
                f"{name} ({_shown(values[0])} in RANK 0, {_shown(values[other])} in {other})"
            )
    if not found:
        return None
    return f"the processes of one training differ: {', '.join(found)}"


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) > 40 else text


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")


def _missing(store: Store, what: str, world_size: int) -> list[int]:
    return [rank for rank in range(world_size) if not store.check([f"{rank}/{what}"])]


def _connect(rank: int, world_size: int, address: tuple[str, int]) -> Store:
    # torch's launcher keeps the store itself, unless it is told not to.
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    host, port = address
    if not serves:
        _wait(
            lambda: [] if _answers(address) else [0],
            lambda ranks: f"RANK 0 at {host}:{port} (MASTER_ADDR, MASTER_PORT)",
        )
    try:
        store = TCPStore(host, port, world_size, serves, wait_for_workers=False)
    except RuntimeError as error:
        raise _unreachable(world_size, address, error) from error
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"zoo/{attempt}", store)


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError:
        return False
    return True


def _wait(
    missing: Callable[[], list[int]],
    described: Callable[[list[int]], str],
    patience: float = PATIENCE,
) -> None:
    """Until none is missing. Signals are looked at all the while. Raises RunFailure in the end."""
    began, word = monotonic(), FIRST_WORD
    while ranks := missing():
        waited = monotonic() - began
        if waited > patience:
            raise RunFailure(f"{described(ranks)} did not come within {patience:.0f} s")
        if waited >= word:
            line = f"waiting for {described(ranks)}, for {waited:.0f} s so far"
            print(f"{line}, for at most {patience:.0f} s", file=sys.stderr)
            word *= 2
        sleep(0.05)


def _unreachable(world_size: int, address: tuple[str, int], error: Exception) -> RunFailure:
    reason = str(error).partition("\n")[0]
    return RunFailure(
        f"the {world_size} processes can't reach each other at {address[0]}:{address[1]}: {reason}"
    )


def _code() -> str:
    """SHA-256 of the source, be it a repository with changes or an installed package."""
    digest = hashlib.sha256()
    for package in SHARED:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
