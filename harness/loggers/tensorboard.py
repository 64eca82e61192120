"""TensorBoard's event files, without torch's writer: the loggers' process need not load torch."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from harness.common.rows import Histogram, Row
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.flat import final_scores, flat_settings

LOG = logging.getLogger("harness")


class TensorBoard(Logger):
    """Event files in the run's folder: `tensorboard --logdir runs` shows all runs there are."""

    modules = (
        "tensorboard.plugins.hparams.summary_v2",
        "tensorboard.summary.writer.event_file_writer",
    )

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder / "tensorboard"))
        # A viewer then drops the steps that come again, be it all of them.
        self._write(step, session_log=SessionLog(status=SessionLog.START))
        hyperparameters = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in flat_settings(settings).items()
        }
        self._write(step, summary=hparams_pb(hyperparameters, trial_id=folder.name))
        LOG.info(f"tensorboard --logdir {folder.parent}")

    def log(self, row: Row) -> None:
        self._write(row["step"], summary=_summary(row))

    def close(self, summary: dict[str, Any]) -> None:
        if scores := final_scores(summary):
            self._write(summary["train"]["steps"], summary=_summary(scores))
        self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))


def _summary(values: dict[str, Any]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    found = Summary()
    for name, value in values.items():
        if isinstance(value, Histogram):
            low, high = value.edges[:-1], value.edges[1:]
            middles = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
            histogram = HistogramProto(
                min=value.edges[0],
                max=value.edges[-1],
                num=sum(value.counts),
                sum=sum(n * x for n, x in zip(value.counts, middles, strict=True)),
                sum_squares=sum(n * x * x for n, x in zip(value.counts, middles, strict=True)),
                # A bucket ends at its limit; the first, empty one ends where the values begin.
                bucket_limit=value.edges,
                bucket=[0, *value.counts],
            )
            found.value.add(tag=name, histo=histogram)
        elif value is not None:
            found.value.add(tag=name, simple_value=value)
    return found
