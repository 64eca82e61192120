"""A client of a live page's server, and a browser on its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.browser import Browser
from tests.live.live_server import make_run, row, serving


@pytest.fixture
def client(tmp_path: Path) -> Any:
    make_run(tmp_path / "a", [row(0, loss=1.0)])
    with serving(tmp_path) as client:
        yield client


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """visit() opens the page on the runs in tmp_path; at the end nothing may have gone wrong."""
    browser.events.clear()
    browser.look()
    with serving(tmp_path) as client:

        def open_page(path: str = "") -> Browser:
            browser.open(client.server.address)
            if path:
                browser.run(f"location.hash = {json.dumps(path)}")
            return browser

        yield open_page
        assert browser.troubles() == []
        hosts = {address.split("/")[2] for address in browser.addresses() if "://" in address}
        assert hosts == {client.host}
        browser.open("about:blank")
