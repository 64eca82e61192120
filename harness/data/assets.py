"""Files from the network, looked for in the asset path and the cache first."""

from __future__ import annotations

import hashlib
import math
import queue
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from omegaconf import OmegaConf

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.files import atomic_write, sha256_of
from harness.common.paths import REPOSITORY, expand, user_cache
from harness.data.addresses import careful_opener, require_confirmed

CONNECT_SECONDS = 8.0  # limit for name look-up, connection and first answer together


@dataclass(frozen=True)
class Assets:
    """path: the folders to search, in order. cache: receives downloads. confirmed: for a run from
    elsewhere, the addresses that the user trusts (`https://HOST`); None: any, the user chose it.
    expected: for such a run the digests of its text, and of those of a mix, as far as known."""

    path: tuple[Path, ...]
    cache: Path
    confirmed: tuple[str, ...] | None = None
    expected: frozenset[str] = frozenset()

    @classmethod
    def of(cls, folders: Sequence[str | None], cache: str | None) -> Assets:
        """From settings. Unset folders are left out; relative ones lie in the repository. Without a
        cache it is a folder in the user's."""
        path = tuple(REPOSITORY / expand(folder) for folder in folders if folder)
        return cls(path, expand(cache) if cache else user_cache() / "language-model-zoo")

    def of_stranger(self, trust: Sequence[str], *texts: str | None) -> Assets:
        """For a run's folder, which may name any address and file. trust: what the user trusts.
        texts: the digests of the run's; None for one that the folder does not say."""
        return replace(self, confirmed=tuple(trust), expected=frozenset(filter(None, texts)))

    @classmethod
    def own(cls) -> Assets:
        """From conf/config.yaml and the environment, not from a run's folder: a stranger's run
        must not choose where files are read and written."""
        conf = OmegaConf.load(REPOSITORY / "conf" / "config.yaml")
        folders: Any = OmegaConf.to_container(conf.assets, resolve=True)
        return cls.of(folders, conf.cache)

    def locate(self, name: str) -> Path | None:
        """The file or folder of that name in the asset path or the cache; None if there is none."""
        for folder in (*self.path, self._downloads):
            if (folder / name).exists():
                return folder / name
        return None

    def find(self, file: str, url: str, sha256: str | None, unasked: str | None = None) -> Path:
        """The path of the file, downloaded to the cache if no folder has it.

        sha256: the expected digest; None if unknown. unasked: why the network is not asked. Raises
        UsageError if the file is not available (naming file, URL, digest and folder) or has another
        digest.
        """
        path = self.locate(file)
        if path is None:
            return self._download(file, url, sha256, unasked)
        try:
            found = sha256_of(path)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        if sha256 not in (None, found):
            raise UsageError(
                f"{path} is not the expected file: its SHA-256 is {found}, not {sha256};"
                " remove or replace it"
            )
        return path

    def why_unreachable(self, url: str) -> str | None:
        """Why an address does not answer, or is not asked; None if it answers, with whatever."""
        try:
            self._connect(url).close()
        except OSError as error:
            return None if isinstance(error.__cause__, HTTPError) else str(error)
        return None

    @property
    def _downloads(self) -> Path:
        return self.cache / "assets"

    def _download(self, file: str, url: str, sha256: str | None, unasked: str | None) -> Path:
        target = self._downloads / file
        try:
            if unasked:
                raise OSError(unasked)
            with self._connect(url) as response, atomic_write(target) as temporary:
                for chunk in _chunks(response, self._most):
                    temporary.write(chunk)
                temporary.seek(0)
                found = hashlib.file_digest(temporary, "sha256").hexdigest()
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

    @property
    def _most(self) -> float:
        """Bytes of a download."""
        return math.inf if self.confirmed is None else contained.GIB * contained.factor()

    def _connect(self, url: str) -> HTTPResponse:
        if self.confirmed is None:
            return _in_time(urllib.request.urlopen, url)
        require_confirmed(url, self.confirmed)
        return _in_time(careful_opener(self.confirmed).open, url)


def _chunks(response: HTTPResponse, most: float) -> Iterator[bytes]:
    """The body in chunks. Raises OSError if it is incomplete or has more than `most` bytes; without
    an errno, so that `atomic_write` does not report it as an error of the disk."""
    expected, size = response.length, 0  # a chunked read does not report a short body
    try:
        while chunk := response.read(1 << 20):
            size += len(chunk)
            if size > most:
                raise OSError(f"more than {most:,.0f} bytes; $ZOO_LIMITS multiplies all limits")
            yield chunk
    except (OSError, HTTPException) as error:
        raise OSError(f"the download broke off: {error}") from error
    if expected not in (None, size):
        raise OSError(f"the download broke off after {size} of {expected} bytes")


def _in_time(open_url: Callable[..., HTTPResponse], url: str) -> HTTPResponse:
    """Open a URL. Times out after CONNECT_SECONDS even if the name look-up hangs."""
    answer: queue.Queue[HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answer.put(open_url(url, timeout=CONNECT_SECONDS))
        except Exception as error:  # raised in the caller's thread
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        result = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:.0f} seconds") from None
    if isinstance(result, Exception):
        raise OSError(str(result)) from result
    return result
