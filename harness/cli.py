"""How every command starts and ends: Hydra's composition, one clear line for a mistake, exit codes.

0 finished, 1 failed, 2 wrong usage, 130 interrupted, 143 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config
from harness.errors import RunFailure, UsageError

INTERRUPTED = 130
TERMINATED = 143


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and leave with its exit code; mistakes end in one line."""
    try:
        code = main()
    except UsageError as error:
        code = fail(error, 2)
    except RunFailure as error:
        code = fail(error, 1)
    except KeyboardInterrupt:
        code = fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader left (`… | head`): nothing more to say, and Python must not try to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def run_hydra(task: Callable[[DictConfig], int]) -> NoReturn:
    """Compose the configuration from the command line and run `task` on it, or on each of many."""
    import hydra

    register_resolvers()
    # Hydra then hands its errors to us instead of printing them over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    def main() -> int:
        try:
            hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")(
                _exiting(task)
            )()
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(explain(error)) from error
        return 0

    run_tool(main)


def register_resolvers() -> None:
    """`${unique:}`: a few letters that no other process has, the same wherever one run reads it."""
    OmegaConf.register_new_resolver(
        "unique", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True
    )


def _exiting(task: Callable[[DictConfig], int]) -> Callable[[DictConfig], int]:
    """A single run leaves with its exit code; in a sweep the job's code goes back to the sweep."""

    def job(cfg: DictConfig) -> int:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return task(cfg)
        run_tool(lambda: task(cfg))

    return job


def explain(error: Exception) -> str:
    """Hydra's or OmegaConf's complaint in one line, with the nearest valid name."""
    import re

    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    group = re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)
    if group:
        folder, name = group.groups()
        options = sorted(path.stem for path in (config.CONF / folder).glob("*.yaml"))
        hint = config.nearest(name, options)
        return f"{folder}={name} does not exist.{hint} Choices: {', '.join(options)}"
    key = re.search(r"Could not override '([\w./@]+)'", text)
    if key:
        return f"there is no setting {key[1]}.{config.nearest(key[1], _known_keys())}"
    return text


def _known_keys() -> Iterator[str]:
    """Every group and every dotted key of any file in conf/."""
    for path in sorted(config.CONF.rglob("*.yaml")):
        group = path.relative_to(config.CONF).parent.as_posix()
        if group == "experiment":
            continue
        yield from ([] if group == "." else [group])
        yield from _keys(OmegaConf.load(path), "" if group == "." else f"{group}.")


def _keys(node: object, prefix: str) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for key in map(str, node):
            yield f"{prefix}{key}"
            yield from _keys(node._get_node(key), f"{prefix}{key}.")


def compose(overrides: list[str], config_dir: Path = config.CONF) -> DictConfig:
    """The configuration that these command-line overrides give, without running anything."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig

    register_resolvers()
    with initialize_config_dir(str(config_dir), version_base="1.3"):
        cfg = hydra_compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg
