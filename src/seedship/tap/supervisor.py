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
import resource
import select
import socket
import subprocess
import threading
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
_STARTS_S: Final = 15.0
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
        beat = self.numbers.beat
        # Before its first beat no guest's writes are mirrored into it.
        return now - (beat or self.since) > (PATIENCE_S if beat else _STARTS_S) * 1e9


class _Watch:
    """The taps that run, watched by a thread that touches no file system."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taps: dict[int, _Tap] = {}
        """By process id."""
        self._rests_since = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, tap: _Tap) -> None:
        with self._lock:
            self._taps[tap.process.pid] = tap

    def is_over(self) -> bool:
        """Whether there has been no tap for a while."""
        with self._lock:
            return not self._taps and time.monotonic() - self._rests_since > _REST_S

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            now = time.monotonic_ns()
            with self._lock:
                for pid, tap in list(self._taps.items()):
                    if tap.process.poll() is not None:
                        tap.numbers.close()
                        del self._taps[pid]
                        self._rests_since = time.monotonic()
                    elif tap.hangs(now):
                        tap.process.kill()


class _Supervisor:
    """Starts taps. The kernel ends them with the thread that started them: the main one."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._watch = _Watch()

    def run(self) -> None:
        """Serve until there has been no tap for a while."""
        while not self._watch.is_over():
            if not select.select([self._server], [], [], _LOOK_S)[0]:
                continue
            try:
                asker, _ = self._server.accept()
            except OSError:  # No descriptors, or it is gone: it comes again.
                time.sleep(_LOOK_S)
                continue
            with asker, suppress(OSError):
                self._answer(asker)

    def _answer(self, asker: socket.socket) -> None:
        asker.settimeout(_ASKER_S)
        folder = Path(os.fsdecode(asker.recv(LONGEST)))
        gone = select.poll()
        gone.register(asker, 0)
        if gone.poll(0):  # It gave up meanwhile, and may have asked again.
            return
        try:
            self._start(folder)
            why = ""
        except (OSError, ValueError, TypeError) as error:
            why = str(error) or type(error).__name__
        asker.send(os.fsencode(why)[:LONGEST])

    def _start(self, folder: Path) -> None:
        command = json.loads((folder / COMMAND).read_text())
        numbers = SharedNumbers(folder / "board")
        with open(folder / LOG, "wb") as log:
            # The process asks the kernel to be killed when its parent ends, and becomes nbdkit.
            words = ["setpriv", "--pdeathsig", "KILL", *command]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        self._watch.add(_Tap(process, numbers, time.monotonic_ns()))
        try:
            fresh = folder / (FACTS + ".new")
            fresh.write_text(json.dumps({"pid": process.pid, "begun": begun(process.pid)}))
            fresh.rename(folder / FACTS)
        except OSError:
            process.kill()  # Nobody would find it.
            raise


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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.chdir(home)  # The path of a socket is short.
    Path(SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(SOCKET)
        server.listen(64)
        _Supervisor(server).run()
        # Who is in the queue now is refused, and starts the next one.
        Path(SOCKET).unlink()
