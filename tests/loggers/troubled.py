"""A module of loggers that fail, block or die."""

from __future__ import annotations

TROUBLE = """
import os, signal, sys
from harness.loggers.base import Logger

class Fine(Logger):
    # Stores its rows as it is closed; dies before, if there is a file called killed.
    def open(self, folder, settings, step):
        self.folder, self.store = folder, folder / type(self).__name__
        rows = self.store.read_text().splitlines() if self.store.exists() else []
        self.rows = [row for row in rows if int(row) < step]
        self.write()
    def log(self, row): self.rows.append(str(row["step"]))
    def write(self): self.store.write_text("\\n".join(self.rows))
    def close(self, summary):
        if (self.folder / "killed").exists():
            os._exit(3)
        self.write()
    def wait(self):
        try: os.mkfifo(self.folder / "blocked")
        except FileExistsError: pass
        open(self.folder / "blocked").close()

class Open(Fine):
    def open(self, folder, settings, step): raise OSError("no such server")

class Log(Fine):
    def log(self, row): raise ValueError(row["step"])

class Close(Fine):
    def close(self, summary): raise KeyError("closing")

class Dead(Fine):
    def log(self, row):
        print("some library's last words", file=sys.stderr)
        os._exit(3)

class BlockedInOpen(Fine):
    def open(self, folder, settings, step):
        super().open(folder, settings, step)
        self.wait()

class BlockedInLog(Fine):
    def log(self, row):
        super().log(row)
        if row["step"] == 0: self.wait()

class BlockedInClose(Fine):
    def close(self, summary):
        self.wait()
        super().close(summary)

class SignalInOpen(BlockedInOpen):
    def open(self, folder, settings, step):
        os.kill(os.getppid(), signal.SIGTERM)
        super().open(folder, settings, step)

class SignalInClose(BlockedInClose):
    def close(self, summary):
        os.kill(os.getppid(), signal.SIGTERM)
        super().close(summary)

class Saying(Fine):
    def close(self, summary):
        super().close(summary)
        open(self.folder / "said", "w").close()

class Releasing(Fine):
    def close(self, summary):
        super().close(summary)
        open(self.folder / "blocked", "w").close()
"""
