# SPDX-License-Identifier: Apache-2.0
"""Speaks to a site's daemon over its unix socket; the errors that it answers with are raised here."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

from seedship.config import DEFAULT_DATA
from seedship.errors import SeedshipError, SiteFailed, SiteUnreachable, revive

SOCKET = "api.sock"
_LIMIT_S = 300.0
_LOOK_S = 20.0
_PREFIX = "/api/v1/"


class SiteClient:
    """One daemon."""

    def __init__(self, data: Path = DEFAULT_DATA) -> None:
        """``data`` is the daemon's folder."""
        self._data = data
        # Nothing is encrypted here: an empty context spares the reading of all certificate authorities of the machine.
        transport = httpx.HTTPTransport(uds=str(data / SOCKET), verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._http = httpx.Client(transport=transport, base_url="http://site/api/v1", timeout=_LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, *path: str, **query: Any) -> Any:
        """Ask for something; a list comes whole, unless ``limit`` bounds it."""
        body, answer = self._asked("GET", _where(path), params=query)
        while "limit" not in query and "next" in answer.links:
            more, answer = self._asked("GET", answer.links["next"]["url"].removeprefix(_PREFIX))
            body += more
        return body

    def post(self, *path: str, **body: Any) -> Any:
        """Have something done."""
        return self._send("POST", path, json=body)

    def poll(self, *path: str, **query: Any) -> Any:
        """As ``get``, for whoever asks again and again: no answer within seconds counts as none."""
        return self._asked("GET", _where(path), params=query, timeout=_LOOK_S)[0]

    def put(self, *path: str, **body: Any) -> Any:
        """Have something as it is given."""
        return self._send("PUT", path, json=body)

    def patch(self, *path: str, **body: Any) -> Any:
        """Change some of it."""
        return self._send("PATCH", path, json=body)

    def delete(self, *path: str) -> Any:
        """Have something removed."""
        return self._send("DELETE", path)

    def _send(self, method: str, path: tuple[str, ...], **options: Any) -> Any:
        return self._asked(method, _where(path), **options)[0]

    def _asked(self, method: str, where: str, **options: Any) -> tuple[Any, httpx.Response]:
        try:
            answer = self._http.request(method, where, **options)
        except httpx.TransportError as error:
            raise SiteUnreachable(str(self._data / SOCKET), str(error)) from error
        try:
            body = answer.json()
        except ValueError as error:
            raise SiteFailed(f"status {answer.status_code}, no JSON") from error
        if answer.is_success:
            return body, answer
        raise _error(body)


def _where(path: tuple[str, ...]) -> str:
    return "/".join(quote(part, safe="") for part in path)


def _error(body: dict[str, Any]) -> SeedshipError:
    return revive(body.get("code", "site.failed"), body.get("fields", {"why": str(body)}))
