"""Finding and downloading, against a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write, sha256_of
from harness.common.paths import REPOSITORY
from harness.data import assets as assets_module
from harness.data.assets import Assets
from tests.waiting import GUARD

CONTENT = b"First Citizen:\n" * 200_000  # more than one chunk
SHA = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """/right, /short (says more than it sends), /wrong, /page (an error page that calls itself a
    success), /missing, and /silent (answers nobody before `spoken`)."""

    spoken = threading.Event()

    def do_GET(self) -> None:
        body = {"/right": CONTENT, "/short": CONTENT[:-500], "/page": b"<html>Sign in</html>"}.get(
            self.path, CONTENT[:-1] + b"?"
        )
        if self.path == "/silent":
            self.spoken.wait(GUARD)
        self.send_response(404 if self.path == "/missing" else 200)
        length = len(CONTENT) if self.path == "/short" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        running.daemon_threads = True
        # A client that gave up is no news, least of all on the stderr of a later test.
        running.handle_error = lambda request, address: None  # type: ignore[method-assign]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        _Handler.spoken.set()
        running.shutdown()


def files_below(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_folders_are_looked_through_in_order(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "cache/assets")]
    url = f"http://127.0.0.1:{closed_port()}/"
    found = Assets((folders[0], folders[1]), tmp_path / "cache")
    for folder in reversed(folders):
        folder.mkdir(parents=True)
        (folder / "corpus.txt").write_bytes(CONTENT)
        assert found.find("corpus.txt", url, SHA) == folder / "corpus.txt"
        assert found.locate("corpus.txt") == folder / "corpus.txt"
    assert found.locate("other.txt") is None


def test_the_configured_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$ZOO_ASSETS, then assets/ and ../shared/assets of the repository, then the user's cache."""
    from harness.cli.hydra_app import compose
    from harness.config.settings import read_settings

    monkeypatch.setenv("ZOO_ASSETS", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = read_settings(compose([]))
    found = Assets.of(settings.assets, settings.cache)
    assert found.path == (
        tmp_path / "mine",
        REPOSITORY / "assets",
        REPOSITORY / "../shared/assets",
    )
    assert found.cache == tmp_path / "cache" / "language-model-zoo"
    monkeypatch.delenv("ZOO_ASSETS")
    settings = read_settings(compose([]))
    assert len(Assets.of(settings.assets, settings.cache).path) == 2


def test_a_download_is_kept(server: str, tmp_path: Path) -> None:
    assets = Assets((), tmp_path)
    path = assets.find("sub/corpus.txt", f"{server}/right", SHA)
    assert path == tmp_path / "assets/sub/corpus.txt"
    assert path.read_bytes() == CONTENT
    assert files_below(tmp_path) == ["assets/sub/corpus.txt"]
    # The second time nobody is asked.
    assert assets.find("sub/corpus.txt", f"http://127.0.0.1:{closed_port()}/", SHA) == path


def test_a_download_of_unknown_digest_must_still_be_whole(server: str, tmp_path: Path) -> None:
    assert Assets((), tmp_path).find("right", f"{server}/right", None).read_bytes() == CONTENT
    with pytest.raises(UsageError, match="broke off after 2999500 of 3000000 bytes"):
        Assets((), tmp_path).find("short", f"{server}/short", None)
    assert files_below(tmp_path) == ["assets/right"]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("short", "the download broke off"),
        ("wrong", "the download's SHA-256 is"),
        ("page", "the download's SHA-256 is"),
        ("missing", "HTTP Error 404"),
    ],
)
def test_a_bad_download_leaves_nothing(server: str, tmp_path: Path, page: str, reason: str) -> None:
    mirror = tmp_path / "mirror"
    with pytest.raises(UsageError) as error:
        Assets((mirror,), tmp_path / "cache").find("sub/corpus.txt", f"{server}/{page}", SHA)
    message = str(error.value)
    assert reason in message
    for named in ("corpus.txt", f"{server}/{page}", SHA, str(mirror / "sub/corpus.txt")):
        assert named in message
    assert "\n" not in message
    assert files_below(tmp_path) == []


def test_no_server_ends_at_once(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{closed_port()}/corpus.txt"
    with pytest.raises(UsageError, match="Connection refused"):
        Assets((), tmp_path).find("corpus.txt", url, SHA)


def test_a_server_that_never_answers_is_given_up(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert assets_module.CONNECT_SECONDS < 10
    monkeypatch.setattr(assets_module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(UsageError, match=r"corpus\.txt"):
        Assets((), tmp_path).find("corpus.txt", f"{server}/silent", SHA)
    assert not _Handler.spoken.is_set()  # it was not the server that ended it
    assert files_below(tmp_path) == []


def test_another_file_of_that_name_is_refused(server: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"something else")
    with pytest.raises(UsageError, match="is not the expected file") as error:
        Assets((tmp_path,), tmp_path / "cache").find("corpus.txt", f"{server}/right", SHA)
    assert SHA in str(error.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)
    assert (tmp_path / "corpus.txt").read_bytes() == b"something else"


def _find(url: str, cache: Path, results: multiprocessing.Queue[str]) -> None:
    try:
        results.put(sha256_of(Assets((), cache).find("corpus.txt", url, SHA)))
    except Exception as error:
        results.put(repr(error))


def test_two_processes_may_download_at_once(server: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = context.Queue()
    workers = [
        context.Process(target=_find, args=(f"{server}/right", tmp_path, results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=GUARD) for _ in workers] == [SHA, SHA]
    for worker in workers:
        worker.join()
    assert files_below(tmp_path) == ["assets/corpus.txt"]


def test_placed_leaves_the_old_file_when_the_new_one_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(target) as file:
        file.write(b"%d" % (1 / 0))
    assert target.read_bytes() == b"old"
    with atomic_write(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert files_below(tmp_path) == ["file"]


def test_placed_says_what_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"a file where a folder should be")
    with (
        pytest.raises(RunFailure, match="can't be written"),
        atomic_write(tmp_path / "folder/file"),
    ):
        pass
