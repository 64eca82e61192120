"""TensorBoard's event files, without torch's writer: a logger's process need not load torch."""

from __future__ import annotations

import logging
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.common.rows import Histogram, Row
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.flat import flat_results, flat_settings

LOG = logging.getLogger("harness")


class TensorBoard(Logger):
    """Event files in the run's folder: `tensorboard --logdir runs` shows all runs there are."""

    def __init__(self) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError(
                "needs the package tensorboard: pip install 'language-model-zoo[tensorboard]'"
            )

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder / "tensorboard"))
        self._step = step
        # A viewer then drops the steps that come again, be it all of them.
        self._write(session_log=SessionLog(status=SessionLog.START))
        self._write(summary=hparams_pb(_plain(flat_settings(settings)), trial_id=folder.name))
        LOG.info(f"tensorboard --logdir {folder.parent}")

    def log(self, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._step = row["step"]
        values = [_value(name, value) for name, value in row.items() if value is not None]
        self._write(summary=Summary(value=values))

    def close(self, summary: dict[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        results = flat_results({"test": summary.get("test"), "best": summary.get("best")})
        values = [_value(name, value) for name, value in results.items() if value is not None]
        self._write(summary=Summary(value=values))
        self._writer.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=self._step, **content))


def _value(name: str, value: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    if not isinstance(value, Histogram):
        return Summary.Value(tag=name, simple_value=value)
    middles = [(low + high) / 2 for low, high in zip(value.edges, value.edges[1:], strict=False)]
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
    return Summary.Value(tag=name, histo=histogram)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters are numbers, truths and texts."""
    return {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in settings.items()
    }
