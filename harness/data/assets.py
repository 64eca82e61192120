"""Files that would be downloaded: looked for in the asset path, the cache, then the network."""

from __future__ import annotations

import queue
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from harness.common.errors import UsageError
from harness.common.files import atomic_write, sha256_of
from harness.common.paths import REPOSITORY

CONNECT_SECONDS = 8.0  # name look-up, connection and first answer together


@dataclass(frozen=True)
class Assets:
    """Where to look. path: folders in order; cache: the user's own, filled by downloads."""

    path: tuple[Path, ...]
    cache: Path

    @classmethod
    def of(cls, folders: Sequence[str | None], cache: str) -> Assets:
        """Folders from the configuration: unset ones left out, relative ones in the repository."""
        path = tuple(REPOSITORY / Path(folder).expanduser() for folder in folders if folder)
        return cls(path, Path(cache).expanduser())

    @classmethod
    def own(cls) -> Assets:
        """The user's: as conf/config.yaml and the environment have it. For a run's folder, which
        may be a stranger's: what is read of ours must not be written where it says."""
        conf = OmegaConf.load(REPOSITORY / "conf" / "config.yaml")
        folders: Any = OmegaConf.to_container(conf.assets, resolve=True)
        return cls.of(folders, conf.cache)

    def locate(self, name: str) -> Path | None:
        """The file or folder of that name, if the asset path or the cache has one."""
        for folder in (*self.path, self._downloads):
            if (folder / name).exists():
                return folder / name
        return None

    def find(self, file: str, url: str, sha256: str | None) -> Path:
        """The file's path, downloaded into the cache if no folder has it.

        sha256: of the file wanted; None if it is not known. Raises UsageError naming file, address,
        digest and folder when it can't be had, and when a file of that name is not the one wanted.
        """
        path = self.locate(file)
        if path is None:
            return self._download(file, url, sha256)
        try:
            found = sha256_of(path)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        if sha256 not in (None, found):
            raise UsageError(
                f"{path} is not the file wanted: its SHA-256 is {found}, not {sha256};"
                " remove it or put the right one there"
            )
        return path

    @property
    def _downloads(self) -> Path:
        return self.cache / "assets"

    def _download(self, file: str, url: str, sha256: str | None) -> Path:
        target = self._downloads / file
        try:
            with _connect(url) as response, atomic_write(target) as temporary:
                for chunk in _chunks(response):
                    temporary.write(chunk)
                temporary.flush()
                found = sha256_of(Path(temporary.name))
                if sha256 not in (None, found):
                    raise OSError(f"the download's SHA-256 is {found}")
        except OSError as error:
            wanted = (self.path[0] if self.path else self._downloads) / file
            digest = f" (SHA-256 {sha256})" if sha256 else ""
            raise UsageError(
                f"{wanted.name} is not in the asset path and could not be downloaded ({error}); "
                f"get it from {url}{digest} and save it as {wanted}"
            ) from error
        return target


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body, whole. Its failures carry no errno, which `atomic_write` takes for the disk's."""
    expected, size = response.length, 0  # read in chunks, a short body would pass for a whole one
    try:
        while chunk := response.read(1 << 20):
            size += len(chunk)
            yield chunk
    except (OSError, HTTPException) as error:
        raise OSError(f"the transfer broke off: {error}") from error
    if expected not in (None, size):
        raise OSError(f"the transfer broke off after {size} of {expected} bytes")


def _connect(url: str) -> HTTPResponse:
    """Open a URL, giving up after CONNECT_SECONDS even where the name look-up hangs."""
    answer: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=CONNECT_SECONDS))
        except Exception as error:  # handed to the caller's thread
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        result = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} seconds") from None
    if isinstance(result, Exception):
        raise OSError(str(result)) from result
    return result
