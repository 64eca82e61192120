"""What other commands left in a run's folder, opened from its page in a window of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.live import answers
from harness.live.server import PAGE_POLICY
from tests.live.live_server import Client


def opened(client: Client, page: str = "calibration") -> str:
    status, answer = client.post("open", {"run": client.runs()["a"]["id"], "page": page})
    assert status == 200, answer
    return str(answer["address"])


def test_a_page_is_offered_and_opened(client: Client, tmp_path: Path) -> None:
    run = client.runs()["a"]["id"]
    assert client.get("run", run=run)["pages"] == []
    (tmp_path / "a" / "calibration.html").write_text("<h1>é</h1>")
    assert client.get("run", run=run)["pages"] == ["calibration"]
    status, headers, body = client.ask("GET", opened(client), X_Zoo_Key=None)
    assert (status, body.decode()) == (200, "<h1>é</h1>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"


def test_it_can_not_reach_the_page_that_opened_it(client: Client, tmp_path: Path) -> None:
    """A stranger may have written it: its scripts run in an origin of their own, without a net."""
    (tmp_path / "a" / "calibration.html").write_text("<script>parent.localStorage</script>")
    _, headers, _ = client.ask("GET", opened(client))
    assert headers["Content-Security-Policy"] == PAGE_POLICY
    assert "sandbox allow-scripts;" in PAGE_POLICY
    assert "allow-same-origin" not in PAGE_POLICY
    assert "default-src 'none'" in PAGE_POLICY
    _, headers, _ = client.ask("GET", "/")
    assert "sandbox" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("kind", ["link", "folder", "large", "none"])
def test_only_a_plain_file_of_the_run_is_read(kind: str, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a" / "calibration.html"
    (tmp_path / "secret").write_text("secret")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "secret")
        case "folder":
            path.mkdir()
        case "large":
            with path.open("wb") as file:
                file.truncate(1 << 40)
    status, _, body = client.ask("GET", opened(client))
    assert status == 404
    assert b"calibration.html" in body
    assert b"secret" not in body


def test_no_other_file_and_no_guess_opens_anything(client: Client, tmp_path: Path) -> None:
    run = client.runs()["a"]["id"]
    status, answer = client.post("open", {"run": run, "page": "../config.yaml"})
    assert (status, answer["error"]) == (404, "page is one of calibration, inside")
    assert client.ask("GET", "/opened/")[0] == 404
    assert client.ask("GET", "/opened/../config.yaml")[0] == 404
    (tmp_path / "a" / "calibration.html").touch()
    first = opened(client)
    for _ in range(answers.MOST_OPENED):
        opened(client)
    assert client.ask("GET", first)[0] == 404  # the oldest are forgotten
