"""Network addresses that only a run's folder names: none is asked but those that the user confirmed
(`--trust https://HOST`, `trust=[https://HOST]`), and of these none that is private."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from http.client import HTTPMessage, HTTPSConnection
from typing import IO, Any
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def careful_opener(confirmed: Collection[str]) -> OpenerDirector:
    """Opens https addresses of the confirmed hosts. A redirect is a new address, checked like the
    first. No proxy: it would look names up by itself."""
    return build_opener(ProxyHandler({}), _PublicHandler, _Redirects(confirmed))


def require_confirmed(url: str, confirmed: Collection[str]) -> None:
    """Raises OSError unless `url` begins with https and the user has confirmed its host."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise OSError(f"{url!r:.200}: of what a run's folder names, only https://… is fetched")
    hosts = {urlsplit(each).netloc for each in confirmed if each.startswith("https://")}
    if parts.netloc not in hosts:
        host = f"https://{parts.netloc}"
        raise OSError(
            f"only the run's folder names {host}, so it is not asked; if you trust it: "
            f"--trust {host}, or trust=[{host}] to resume"
        )


class _Redirects(HTTPRedirectHandler):
    def __init__(self, confirmed: Collection[str]) -> None:
        self._confirmed = confirmed

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        require_confirmed(newurl, self._confirmed)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _PublicConnection(HTTPSConnection):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._create_connection = connect_publicly


class _PublicHandler(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        return self.do_open(_PublicConnection, req)


def connect_publicly(address: tuple[str, int], timeout: Any, source: Any = None) -> socket.socket:
    """Connect to what the name means now: asked again, it could mean another address. Raises
    OSError if any of its addresses is private."""
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, (place, *_rest) in found:
        if not is_public(str(place)):
            raise OSError(f"{host} is {place}, which is no public address")
    return socket.create_connection((str(found[0][4][0]), port), timeout, source)


def is_public(place: str) -> bool:
    """Whether an IP address is of the internet, and no other address in disguise."""
    ip = ipaddress.ip_address(place.partition("%")[0])
    disguised = isinstance(ip, ipaddress.IPv6Address) and (
        ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in _NAT64
    )
    return ip.is_global and not ip.is_multicast and not disguised
