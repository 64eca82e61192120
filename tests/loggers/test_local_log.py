"""metrics.jsonl: what can't be written, what is damaged, and how it is read as it grows."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest

from harness.common.errors import RunFailure
from harness.common.rows import Histogram, strict_json
from harness.loggers.local import Local
from harness.runs import metrics
from tests.small_runs import settings


def test_a_local_log_that_can_not_be_written_fails_at_once(tmp_path: Path) -> None:
    """A disk that is full, as a limit on the size of files makes it."""
    local = Local()
    local.open(tmp_path, settings(tmp_path / "a"), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
    try:
        local.log({"step": 0, "a": 1})
        with pytest.raises(RunFailure, match=r"metrics.jsonl can't be written: File too large"):
            local.log({"step": 1, "a": 1})
        local.close({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / "b" / Local.FILE).mkdir(parents=True)
    with pytest.raises(RunFailure, match=r"metrics.jsonl can't be written: a folder"):
        Local().open(tmp_path / "b", settings(tmp_path / "a"), 0)


def test_a_damaged_line_takes_no_other_row_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read stays; what is lost is said."""
    row = '{"step": %d, "tokens": 7}'
    lines = [(row % step).encode() for step in range(24)]
    lines[3] = lines[3][:9]
    lines[5] = b"\xff" + lines[5]
    lines[7:7] = [b"[1]", b"3", b"null", b'{"step": "x"}', b'{"step": 2.0}', b"{}", b""]
    path = tmp_path / Local.FILE
    path.write_bytes(b"\n".join(lines) + b'\n{"step": 24, "tok')
    local = Local()
    local.open(tmp_path, settings(tmp_path / "a"), 20)
    local.close({})
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [{"step": step, "tokens": 7} for step in range(20) if step not in (3, 5)]
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "the rows of 2 of the first 20 steps are missing or damaged" in line
    assert "(the first: step 3)" in line

    # A line that a kill tore was of a step that comes again: nothing to say.
    caplog.clear()
    whole = "".join(row % step + "\n" for step in range(5))
    path.write_text(whole + '{"step": 5, "tok')
    local.open(tmp_path, settings(tmp_path / "a"), 5)
    local.close({})
    assert path.read_text() == whole
    assert not caplog.records


def test_a_file_that_grows_is_read_on_from_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / metrics.FILE
    path.write_bytes(b'{"step": 0}\n{"st')
    with path.open("rb") as reader, path.open("ab", buffering=0) as writer:
        assert list(metrics.whole_lines(reader)) == [b'{"step": 0}\n']
        assert list(metrics.whole_lines(reader)) == []
        writer.write(b'ep": 1}\n{"step": 2}\n')
        assert list(metrics.whole_lines(reader)) == [b'{"step": 1}\n', b'{"step": 2}\n']


TAIL = metrics.TAIL_BYTES


@pytest.mark.parametrize("long", [0, TAIL - 1, TAIL, 5 * TAIL])
def test_the_last_row_is_found_from_the_end(long: int, tmp_path: Path) -> None:
    path = tmp_path / metrics.FILE
    assert metrics.last_row(path) is None
    path.write_text('{"step": 3')
    assert metrics.last_row(path) is None
    path.write_text(f'{{"step": 3}}\n{{"step": 4, "a": "{"x" * long}"}}\n')
    assert (metrics.last_row(path) or {}).get("step") == 4
    with path.open("a") as file:
        file.write('[5]\n{"step": NaN}\n{"step": 6, "a')
    assert (metrics.last_row(path) or {}).get("step") == 4


def test_a_histogram_is_strict_json_too() -> None:
    kept = {"step": 3, "weights/a": Histogram([1, 2], [0.0, 0.5, 1.0])}
    assert metrics.parse_row(strict_json(kept).encode()) == kept
    row = {"step": 3, "train/loss": math.nan, "weights/a": Histogram([1, 2], [0.0, 0.5, math.inf])}
    expected = {"counts": [1, 2], "edges": [0.0, 0.5, None]}
    assert json.loads(strict_json(row)) == {"step": 3, "train/loss": None, "weights/a": expected}
    assert json.loads(strict_json({"a": Histogram([4], [0.0, 1.0])}))["a"]["counts"] == [4]
    with pytest.raises(TypeError, match="object can't be written as JSON"):
        strict_json({"a": object()})
