# SPDX-License-Identifier: Apache-2.0
"""Somebody at a site who types what it says. Commands of seedship run in the process of the test, which is faster."""

import asyncio
import functools
import io
import json
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import typer.main

from seedship import cli, client
from seedship.access import Actor, Role
from seedship.api.app import build
from seedship.api.guard import PEER
from seedship.service import Service
from seedship.workflows import Context

_get_command = typer.main.get_command


@functools.cache
def _group(app: typer.Typer) -> Any:
    """The parser of the command line, which is the same for each command."""
    return _get_command(app)


def printed(text: str) -> list[str]:
    """The commands that a remedy names, as somebody copies them: between backticks, or from ``seedship`` to the end."""
    quoted = [part for part in re.findall(r"`([^`]+)`", text) if " " in part]
    bare = re.split(r"[;,.]? (?=seedship )|; |, (?:then|or|which|and) | \(", re.sub(r"`[^`]*`", "", text))
    return quoted + [part.rstrip(".") for part in bare if part.startswith("seedship ")]


class Person:
    """Types at the daemon in a folder; or at parts of a site in this process, around which no daemon runs."""

    def __init__(self, data: Path, service: Service | None = None) -> None:
        self.data = data
        self._transport = None if service is None else _InProcess(service)

    def run(self, command: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command, as the shell reads it."""
        words = shlex.split(command)
        if words[0] != "seedship":
            done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr
        out, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["seedship", "--data", str(self.data), *words[1:]])
            patch.setattr(typer.main, "get_command", _group)
            if self._transport is not None:
                patch.setattr(client.httpx, "HTTPTransport", lambda **_: self._transport)
            with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
                cli.main()
        return int(ended.value.code or 0), out.getvalue(), errors.getvalue()

    def works(self, command: str) -> str:
        code, out, errors = self.run(command)
        assert code == 0, (command, out, errors)
        return out

    def refused(self, command: str) -> dict[str, Any]:
        """The error that a command ends with."""
        code, out, errors = self.run(f"{command} -o json")
        assert code != 0, out
        return dict(json.loads(errors.strip().splitlines()[-1]))

    def json(self, command: str) -> Any:
        return self.parsed(self.works(f"{command} -o json"))

    @staticmethod
    def parsed(text: str) -> Any:
        return json.loads(text)


class _InProcess(httpx.BaseTransport):
    """Brings requests to the API of a service, as root's by the local socket are."""

    def __init__(self, service: Service) -> None:
        self._app = build(service)

    async def _as_root(self, scope: Any, receive: Any, send: Any) -> None:
        scope[PEER] = Actor("root", Role.ADMIN, "socket")
        await self._app(scope, receive, send)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self._as_root)) as asking:
                sent = asking.build_request(
                    request.method, request.url, headers=request.headers, content=request.read()
                )
                answer = await asking.send(sent)
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

        return asyncio.run(asked())


class Hurried:
    """A reconciler that only notes whom it shall hurry for."""

    def __init__(self) -> None:
        self.hurried: list[str] = []

    def hurry(self, replication: str) -> None:
        self.hurried.append(replication)

    start = again = hurry


def at(context: Context) -> Person:
    """Somebody at a site whose parts are in this process."""
    return Person(context.paths.data, Service(context, Hurried(), None))  # type: ignore[arg-type]
