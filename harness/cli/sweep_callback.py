"""Hydra's callback at the start and end of a sweep."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from harness.cli.tool import fail, run_tool
from harness.common.errors import RunFailure, UsageError

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from harness.training.sweep import Sweep


class SweepReport(Callback):
    """Checks a sweep before it starts; at its end prints the table and writes report.html.

    Hydra turns exceptions of a callback into warnings, so its methods end the process themselves.
    Hydra builds it for single runs too, so the sweep is imported when it starts.
    """

    _sweep: Sweep

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            from harness.training.sweep import begin_sweep

            self._sweep = begin_sweep(config)
        except (UsageError, OmegaConfBaseException) as error:
            sys.exit(fail(error, 2))
        except RunFailure as error:  # a full disk while the corpus is encoded
            sys.exit(fail(error, 1))
        except Exception:
            traceback.print_exc()
            sys.exit(1)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if hasattr(self, "_sweep"):
            self._sweep.any_failed |= job_return._return_value != 0

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            run_tool(self._sweep.report)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
