"""What only a run's folder names is not asked, and never a private address."""

from __future__ import annotations

import socket
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from harness.common.errors import UsageError
from harness.data import addresses
from harness.data.assets import Assets

URL = "https://example.org/x"


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every name that is looked up; none is connected to."""
    asked: list[Any] = []

    def look_up(host: str, port: int, **options: Any) -> list[Any]:
        asked.append(host)
        place = {"inner.org": "10.0.0.1"}.get(host, "93.184.216.34")
        return [(0, 0, 0, "", (place, port)), (0, 0, 0, "", ("93.184.216.34", port))]

    def connect(address: Any, *rest: Any) -> Any:
        asked.append(address)
        raise OSError("not connected")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


def test_an_address_of_a_folder_is_not_asked(asked: list[Any], tmp_path: Path) -> None:
    assets = Assets((), tmp_path).of_stranger([])
    with pytest.raises(UsageError, match=r"--trust https://example\.org") as error:
        assets.find("x", URL, None)
    assert "\n" not in str(error.value)
    assert asked == []


def test_a_confirmed_one_is_asked_where_it_was_looked_up(asked: list[Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not connected"):
        Assets((), tmp_path).of_stranger(["zoo", "https://example.org"]).find("x", URL, None)
    assert asked == ["example.org", ("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "url",
    ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "https://a@example.org/x",
     "https://example.org:444/x", "https://example.org.evil.org/x", "data:,x", "https:///x", ""],
)  # fmt: skip
def test_others_are_refused(url: str, asked: list[Any]) -> None:
    with pytest.raises(OSError, match=r"only|ask"):
        addresses.require_confirmed(url, ["https://example.org"])


def test_a_name_that_means_a_private_address(asked: list[Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"10\.0\.0\.1, which is no public address"):
        Assets((), tmp_path).of_stranger(["https://inner.org"]).find("x", "https://inner.org/x", "")
    assert asked == ["inner.org"]


def test_a_redirect_is_a_new_address() -> None:
    handler = addresses._Redirects(["https://example.org"])
    arguments = (None, 302, "Found", Message())
    for url in ("http://example.org/y", "https://other.org/y", "file:///etc/passwd"):
        with pytest.raises(OSError, match="only"):
            handler.redirect_request(Request(URL), *arguments, url)  # type: ignore[arg-type]
    again = handler.redirect_request(Request(URL), *arguments, f"{URL}y")  # type: ignore[arg-type]
    assert again is not None
    assert again.full_url == f"{URL}y"


@pytest.mark.parametrize(
    ("place", "public"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("169.254.169.254", False),
     ("10.1.2.3", False), ("192.168.0.1", False), ("100.64.0.1", False), ("0.0.0.0", False),
     ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
     ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", False), ("64:ff9b::a00:1", False),
     ("2002:a00:1::", False)],
)  # fmt: skip
def test_which_addresses_are_public(place: str, public: bool) -> None:
    assert addresses.is_public(place) == public
