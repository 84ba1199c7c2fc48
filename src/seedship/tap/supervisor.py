# SPDX-License-Identifier: Apache-2.0
"""Start the taps of a host, and end each that hangs: a guest whose writes are mirrored into it would hang with it.

The supervisor is one process for all taps, which depends on neither the daemon nor anything that the daemon waits for.
It ends a while after the last tap. Should it be killed, the taps end with it (each asks the kernel for that), so that
none is ever unwatched.

A request is the path of a tap's folder in one packet, the answer a text: empty, or why it was not started. Only who
may enter the supervisor's folder can ask.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from seedship.tap.state import SharedNumbers

COMMAND: Final = "command.json"
FACTS: Final = "tap.json"
LOG: Final = "tap.log"
SOCKET: Final = "supervisor.sock"
LOCK: Final = "supervisor.lock"
PATIENCE_S: Final = 2.0
_LOOK_S: Final = 0.1
_REST_S: Final = 5.0
"""Time without taps after which it ends."""
_ASKER_S: Final = 2.0
LONGEST: Final = 4096
"""Maximum bytes of a request and of an answer."""


@dataclass
class _Tap:
    """A tap that is watched."""

    process: subprocess.Popen[bytes]
    numbers: SharedNumbers
    since: int

    def hangs(self, now: int) -> bool:
        return now - max(self.numbers.beat, self.since) > PATIENCE_S * 1e9


class _Supervisor:
    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._taps: dict[int, _Tap] = {}
        """By process handle."""
        self._news = selectors.DefaultSelector()
        self._news.register(server, selectors.EVENT_READ)
        self._rests_since = time.monotonic()

    def run(self) -> None:
        """Watch until there has been no tap for a while."""
        while self._taps or time.monotonic() - self._rests_since < _REST_S:
            for key, _ in self._news.select(_LOOK_S):
                if key.fileobj is self._server:
                    self._answer()
                else:
                    self._ended(key.fd)
            now = time.monotonic_ns()
            for handle, tap in self._taps.items():
                if tap.hangs(now):
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGKILL)

    def _answer(self) -> None:
        asker, _ = self._server.accept()
        with asker, suppress(OSError):  # It is gone, and will find the tap by its folder.
            asker.settimeout(_ASKER_S)
            folder = Path(os.fsdecode(asker.recv(LONGEST)))
            try:
                self._start(folder)
                why = ""
            except (OSError, ValueError) as error:
                why = str(error) or type(error).__name__
            asker.send(os.fsencode(why)[:LONGEST])

    def _start(self, folder: Path) -> None:
        command = json.loads((folder / COMMAND).read_text())
        with open(folder / LOG, "wb") as log:
            # The process asks the kernel to be killed when its parent ends, and becomes nbdkit.
            words = ["setpriv", "--pdeathsig", "KILL", *command]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        try:
            handle = os.pidfd_open(process.pid)
            self._taps[handle] = _Tap(process, SharedNumbers(folder / "board"), time.monotonic_ns())
            self._news.register(handle, selectors.EVENT_READ)
        except OSError:
            process.kill()  # It would run unwatched.
            process.wait()
            raise
        fresh = folder / (FACTS + ".new")
        fresh.write_text(json.dumps({"pid": process.pid, "begun": begun(process.pid)}))
        fresh.rename(folder / FACTS)

    def _ended(self, handle: int) -> None:
        self._news.unregister(handle)
        tap = self._taps.pop(handle)
        tap.process.wait()
        tap.numbers.close()
        os.close(handle)
        self._rests_since = time.monotonic()


def begun(pid: int) -> str:
    """Return a process's start time, as the kernel counts it; empty if there is no such process.

    A pid alone may belong to another process by now.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def main(home: Path) -> None:
    """Be the supervisor of the host's taps, or return at once if there is one.

    Args:
        home: Its private folder.
    """
    lock = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    os.chdir(home)  # The path of a socket is short.
    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(SOCKET)
        server.listen(64)
        _Supervisor(server).run()
        # Who is in the queue now is refused, and starts the next one.
        Path(SOCKET).unlink()
