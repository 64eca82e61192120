"""What the process that scores again can still do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GUARDED = """
import sys, tempfile
from pathlib import Path
from harness.referee.process import Forbidden, guard
guard(Path(sys.argv[1]))
print(tempfile.gettempdir())
try: open(tempfile.gettempdir() + "/text", "w")
except Forbidden as error: print(error)
"""


def test_code_that_is_imported_late_may_ask_where_temporary_files_go(tmp_path: Path) -> None:
    """As modules of torch do; Python finds out by writing there, which nothing may any more."""
    ended = subprocess.run(
        [sys.executable, "-c", GUARDED, str(tmp_path / "run")],
        env=os.environ | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.stdout.splitlines() == [
        str(tmp_path),
        f"the model's code opens {tmp_path / 'text'} while it is scored again",
    ], ended.stderr
