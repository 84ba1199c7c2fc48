# SPDX-License-Identifier: Apache-2.0
"""A tap's process and its supervisor: started here, found again after the daemon was killed, reliably ended."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from seedship import beneath, clock
from seedship.errors import TapFailed
from seedship.tap import state as state_
from seedship.tap.state import SharedNumbers
from seedship.tap.supervisor import COMMAND, FACTS, LOG, LONGEST, PATIENCE_S, SOCKET, begun
from seedship.units import MiB

_START_S: Final = 20.0
_MARK_S: Final = 5.0
_THREADS: Final = 16
"""Of each connection: as many writes as a mirror of QEMU's has under way (block/mirror.c, MAX_IN_FLIGHT)."""
_ITSELF: Final = 256 * MiB
"""Memory of nbdkit, and of an interpreter."""
_LONGEST_FILE: Final = 16 * MiB
"""Bytes; a file of the log has 9 MiB at most."""
_RUN: Final = "import sys; from pathlib import Path; from seedship.tap.supervisor import main; main(Path(sys.argv[1]))"
_children: list[subprocess.Popen[bytes]] = []
"""Child processes of this process, reaped so that they do not stay as zombies."""


class TapProcess:
    """A running (or ended) tap, identified by its two folders.

    ``folder`` is private; QEMU may connect in ``sockets``.
    """

    def __init__(self, folder: Path, sockets: Path, pid: int, since: str) -> None:
        self.folder, self.sockets, self.pid = folder, sockets, pid
        self._since = since
        self.state = SharedNumbers(folder / "board")
        self._inbox: socket.socket | None = None

    @property
    def socket(self) -> str:
        """Path of the NBD socket for QEMU; it has an export for each disk, by target."""
        return str(self.sockets / "nbd.sock")

    @property
    def spool(self) -> Path:
        """Folder of the tap's log."""
        return self.folder / "spool"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        _reap()
        return bool(self._since) and begun(self.pid) == self._since

    @property
    def healthy(self) -> bool:
        """Whether its process runs, takes writes, and answers."""
        now = clock.monotonic()
        return (
            self.alive and self.state.dead in (state_.ALIVE, state_.ENDED) and now - self.state.beat / 1e9 < PATIENCE_S
        )

    @property
    def reason(self) -> str:
        """Why it takes no more writes, for messages."""
        words = {state_.FULL: "its spool is full", state_.FAILED: "its spool cannot be written"}
        if self.state.dead in words:
            return words[self.state.dead]
        return "its process ended" if not self.alive else "it hangs"

    def wait(self, limit: float, after: int) -> None:
        """Return when the log has records after number ``after``, or after ``limit`` seconds."""
        if self._inbox is None:
            path = self.sockets / "daemon.sock"
            path.unlink(missing_ok=True)
            self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._inbox.bind(str(path))
        self.state.listening = 1
        if self.state.appended > after:
            return
        if select.select([self._inbox], [], [], limit)[0]:
            with suppress(BlockingIOError):
                while True:
                    self._inbox.recv(16, socket.MSG_DONTWAIT)

    def acknowledge(self, seq: int, trimmed: int) -> None:
        """Report that everything up to record ``seq`` is durable at the other site.

        Args:
            trimmed: Total bytes deleted from the log.
        """
        self.state.acked = seq
        self.state.trimmed = trimmed
        self._knock()

    def mirror(self, synchronous: bool) -> None:
        """Set whether writes wait for the other site."""
        self.state.mirror = int(synchronous)
        self._knock()

    def mark(self, mark: int) -> int:
        """Have a mark written to the log; returns its record number.

        Raises:
            TapFailed: the tap is dead, or does not answer.
        """
        self.state.marks |= mark
        self._knock()
        name = "ready" if mark == state_.MARK_READY else "end"
        try:
            clock.wait_until(lambda: bool(getattr(self.state, name)), _MARK_S, "a mark", 0.01)
        except TimeoutError as error:
            raise TapFailed(self.reason) from error
        return int(getattr(self.state, name))

    def stop(self) -> None:
        """End its process. A guest that is still mirrored into it continues without. Repeatable."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with suppress(TimeoutError):
                clock.wait_until(lambda: not self.alive, 10, "the tap's end")
        self.close()

    def close(self) -> None:
        """Close what this process has open of it."""
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def _knock(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, suppress(OSError):
            out.setblocking(False)
            out.sendto(b"a", str(self.sockets / "tap.sock"))


def plugin() -> Path:
    """Return the plugin that nbdkit loads: the compiled one, or where that was not built its twin in Python."""
    here = Path(__file__)
    compiled = here.with_name("plugin.so")
    return compiled if compiled.exists() else here.with_name("plugin.py")


def start(
    folder: Path,
    sockets: Path,
    disks: Mapping[str, int],
    *,
    supervisor: Path,
    limit: int,
    timeout: float,
    served_by: Path | None = None,
) -> TapProcess:
    """Start a tap for disks of these sizes (bytes by target), numbered in their order.

    Args:
        supervisor: Private folder of the process that watches all taps; started if it does not run.
        limit: Maximum bytes of its spool.
        timeout: Maximum seconds that a write waits in synchronous mode.
        served_by: The plugin; by default ``plugin()``.

    Raises:
        TapFailed: it does not start.
    """
    served_by = served_by or plugin()
    (folder / "spool").mkdir(parents=True)
    sockets.mkdir(mode=0o770, exist_ok=True)
    owner = sockets.parent.stat()
    beneath.give(sockets, owner)
    for name in ("nbd.sock", "tap.sock", "daemon.sock"):
        (sockets / name).unlink(missing_ok=True)
    SharedNumbers(folder / "board").close()
    names = ",".join(f"{target}:{size}" for target, size in disks.items())
    words = [
        *_limits(len(disks)),
        "nbdkit",
        "--foreground",
        "--threads",
        str(_THREADS),
        "--unix",
        str(sockets / "nbd.sock"),
        *(["python"] if served_by.suffix == ".py" else []),
        str(served_by),
        f"disks={names}",
        f"board={folder / 'board'}",
        f"spool={folder / 'spool'}",
        f"limit={limit}",
        f"timeout={timeout}",
        f"inbox={sockets / 'tap.sock'}",
        f"outbox={sockets / 'daemon.sock'}",
    ]
    (folder / COMMAND).write_text(json.dumps(words))
    why = _ask(supervisor, folder)
    tap = find(folder, sockets)
    if tap is None:
        raise TapFailed(why or "it does not start")
    socket_ = sockets / "nbd.sock"
    with suppress(TimeoutError):
        clock.wait_until(lambda: (socket_.exists() and tap.state.beat > 0) or not tap.alive, _START_S, "nbdkit")
    if not tap.healthy or not socket_.exists():
        tap.stop()
        raise TapFailed((folder / LOG).read_text()[-300:].strip() or "it does not answer")
    try:
        beneath.give(socket_, owner, 0o660)
    except OSError as error:
        tap.stop()
        raise TapFailed(str(error)) from error
    return tap


def _limits(disks: int) -> list[str]:
    """Return the words that keep a QEMU that was taken over from using up this host's descriptors, memory or disk.

    QEMU opens one connection for each disk, and another before it gives up a broken one. A thread has its stack and
    one request, of at most 1 MiB if it is one that was offered. What goes to the log of nbdkit's messages is bounded
    like any file.
    """
    connections = 8 + 2 * disks
    memory = _ITSELF + connections * _THREADS * 3 * MiB
    files = 64 + 3 * connections
    return ["prlimit", f"--nofile={files}", f"--fsize={_LONGEST_FILE}", f"--stack={MiB}", f"--data={memory}"]


def find(folder: Path, sockets: Path) -> TapProcess | None:
    """Return the tap that was started in ``folder``, running or not; None if there is none."""
    try:
        facts = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return None
    return TapProcess(folder, sockets, int(facts["pid"]), str(facts["begun"]))


def _ask(home: Path, folder: Path) -> str:
    """Have the supervisor start a tap; returns why it did not. A supervisor that does not run is started."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    spawned: list[subprocess.Popen[bytes]] = []
    answers: list[str] = []

    def asked() -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as out:
            out.settimeout(_START_S)
            try:
                with _reachable(home) as at:
                    out.connect(at)
                out.send(os.fsencode(folder))
                answers.append(os.fsdecode(out.recv(LONGEST)))
            except (ConnectionError, FileNotFoundError):
                if not spawned or spawned[-1].poll() is not None:
                    spawned.append(_spawn(home))
                return False
        return True

    try:
        clock.wait_until(asked, _START_S, "the supervisor", 0.02)
    except OSError:  # The limits of time among them.
        return "the process that watches the taps does not answer"
    return answers[-1]


@contextmanager
def _reachable(home: Path) -> Iterator[str]:
    """Provide a path of the supervisor's socket that is short enough for one."""
    descriptor = os.open(home, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def _spawn(home: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with open(home / "supervisor.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    _children.append(process)
    return process


def _reap() -> None:
    for child in list(_children):
        if child.poll() is not None:
            with suppress(ValueError):  # Another thread was first.
                _children.remove(child)
