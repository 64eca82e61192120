"""A real browser without a window: Chromium, driven by its DevTools protocol over two pipes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.waiting import GUARD, wait_until


class Browser:
    """One page. Each message is JSON ended by a NUL; answers carry the question's number."""

    def __init__(self, profile: Path) -> None:
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
        if program is None:
            pytest.skip("no chromium here: apt-get install chromium (or your system's package)")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        switches = (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--metrics-recording-only",
            "--hide-scrollbars", "--window-size=1400,1000", f"--user-data-dir={profile}",
        )  # fmt: skip
        # Chromium reads descriptor 3 and writes 4; a shell puts them there, whatever theirs are.
        plumbing = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", plumbing, "bash", program, *switches, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(profile)},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(self._in, False)
        self._rest = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in pages if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(GUARD)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        question = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            question["sessionId"] = self._session
        os.write(self._out, json.dumps(question).encode() + b"\0")
        deadline = time.monotonic() + GUARD
        while time.monotonic() < deadline:
            message = self._receive(deadline)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)
        raise AssertionError(f"{method}: no answer")

    def _receive(self, deadline: float) -> dict[str, Any]:
        import select

        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser is silent"
            block = os.read(self._in, 1 << 20)
            assert block, "the browser is gone"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> Any:
        """Until a JavaScript expression is true; returns its value."""
        values: list[Any] = []
        try:
            wait_until(lambda: values.append(self.run(condition)) or values[-1])
        except AssertionError as error:
            shown = self.run("document.body.innerText")
            raise AssertionError(
                f"{condition} did not come true; the page:\n{shown}\n{self.troubles()}"
            ) from error
        return values[-1]

    def troubles(self) -> list[str]:
        """What went wrong in the page: uncaught errors, and what it was not allowed."""
        self.run("1")  # so that all that came before has arrived
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(details.get("exception", details).get("description", str(details)))
            elif event.get("method") == "Log.entryAdded":
                entry = event["params"]["entry"]
                if entry["level"] == "error":
                    found.append(f"{entry['text']} {entry.get('url', '')}")
        return found

    def addresses(self) -> set[str]:
        """Everything the page asked for."""
        self.run("1")
        return {
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        }

    def look(self, width: int = 1400, dark: bool = False, scale: float = 1.0) -> None:
        """The window's width in pixels, and whether the reader's system is dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=1000, deviceScaleFactor=scale, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


def texts(browser: Browser, selector: str) -> list[str]:
    found = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)"
    )
    return list(found)


def click(browser: Browser, selector: str, text: str = "") -> None:
    find = (
        f"[...document.querySelectorAll({json.dumps(selector)})]"
        f".find((each) => each.textContent.includes({json.dumps(text)}))"
    )
    browser.wait(f"!!{find}")
    browser.run(f"{find}.click()")


def type_into(browser: Browser, selector: str, text: str) -> None:
    browser.run(
        f"(() => {{ const box = document.querySelector({json.dumps(selector)});"
        f"box.value = {json.dumps(text)}; box.dispatchEvent(new Event('input')); }})()"
    )
