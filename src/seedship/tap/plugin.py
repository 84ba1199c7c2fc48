# SPDX-License-Identifier: Apache-2.0
"""The nbdkit plugin in Python: logs the guest's writes, and in synchronous mode holds each until it is safe.

The twin of ``plugin.c``, which is used where it was built. A rule that changes here changes there.

A write completes when it is in the log. In synchronous mode, it completes when the daemon reports that it is
durable at the other site, or after the timeout. After a timeout no write waits until the other site has caught up
again.

After the first write that could not be logged, the tap is dead for all disks, so that the log stays a prefix of the
guest's writes. Discards are not offered: neither QEMU nor the copied disk passes them on.
"""

import builtins
import errno
import socket
import threading
import time
from collections import deque
from pathlib import Path

import nbdkit

from seedship.tap import state as state_
from seedship.tap.spool import Kind, Spool, SpoolFull

API_VERSION = 2
TICK_S = 0.05
LARGEST = 1 << 20
STUCK_S = 1.0
"""Seconds after which a write that is not in the log means that the tap is unhealthy."""

settings: dict[str, str] = {}
disks: list[tuple[str, int]] = []


class _Tap:
    """The state while nbdkit serves."""

    def __init__(self) -> None:
        self.state = state_.SharedNumbers(Path(settings["board"]))
        self.timeout = float(settings["timeout"])
        self.spool = Spool(Path(settings["spool"]), int(settings["limit"]))
        self.log = threading.Lock()
        self.news = threading.Condition()
        self.begun: dict[int, float] = {}
        self.past: deque[tuple[float, int]] = deque()
        self.waits = False
        """Whether writes wait now."""
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.bind(settings["inbox"])
        self.inbox.settimeout(TICK_S)
        self.outbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.outbox.setblocking(False)
        threading.Thread(target=self.tick, daemon=True).start()

    def take(self, kind: Kind, disk: int, offset: int, length: int, data: bytes = b"") -> None:
        """Log one write of the guest."""
        me = threading.get_ident()
        self.begun[me] = time.monotonic()
        try:
            with self.log:
                seq = self.append(kind, disk, offset, length, data)
        finally:
            del self.begun[me]
        self.call()
        if self.waits and self.state.ready:
            self.wait(seq)

    def append(self, kind: Kind, disk: int, offset: int, length: int, data: bytes) -> int:
        state, spool = self.state, self.spool
        if state.dead:
            nbdkit.set_error(errno.ENOSPC)
            raise OSError(errno.ENOSPC, "the tap takes no more")
        try:
            seq = spool.append(kind, disk, offset, length, data, state.trimmed)
        except SpoolFull:
            state.dead = state_.FULL
            nbdkit.set_error(errno.ENOSPC)
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            state.dead = state_.FULL if full else state_.FAILED
            nbdkit.set_error(error.errno or errno.EIO)
            raise
        state.bytes = spool.appended
        state.appended = seq
        return seq

    def call(self) -> None:
        """Wake the daemon if it listens; it also polls by itself."""
        if not self.state.listening:
            return
        self.state.listening = 0
        try:
            self.outbox.sendto(b"w", settings["outbox"])
        except OSError:
            pass  # The daemon is not running, or is busy.

    def wait(self, seq: int) -> None:
        deadline = time.monotonic() + self.timeout
        with self.news:
            while self.waits and not self.state.dead and self.state.acked < seq:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.fall()
                    return
                self.news.wait(left)

    def fall(self) -> None:
        """Stop waiting: the other site is too slow. ``news`` must be held."""
        if self.waits:
            self.waits = False
            self.past.clear()
            self.state.synchronous = 0
            self.state.falls += 1
            self.news.notify_all()

    def tick(self) -> None:
        while True:
            try:
                self.inbox.recv(16)
            except TimeoutError:
                pass
            now = time.monotonic()
            with self.news:
                self.mode(now)
                self.news.notify_all()
            self.mark()
            if all(now - at < STUCK_S for at in list(self.begun.values())):
                self.state.beat = time.monotonic_ns()

    def mode(self, now: float) -> None:
        """Decide whether writes wait: as the daemon requests, once the other site keeps up."""
        state = self.state
        if not state.mirror:
            self.waits = False
            self.past.clear()
            state.synchronous = 0
            return
        if self.waits:
            return
        self.past.append((now, state.appended))
        acked, horizon = state.acked, now - self.timeout / 2
        if state.appended <= acked:
            caught_up = True
        else:  # What was written a while ago is already there.
            old = [seq for at, seq in self.past if at <= horizon]
            caught_up = bool(old) and acked >= old[-1]
        while self.past and self.past[0][0] < horizon - 1:
            self.past.popleft()
        if caught_up:
            self.waits = True
            state.synchronous = 1

    def mark(self) -> None:
        state = self.state
        marks = state.marks
        if not (marks & state_.MARK_READY and not state.ready) and not (marks & state_.MARK_END and not state.end):
            return
        try:
            with self.log:
                if marks & state_.MARK_READY and not state.ready:
                    state.ready = self.append(Kind.READY, 0, 0, 0, b"")
                if marks & state_.MARK_END and not state.end:
                    state.end = self.append(Kind.END, 0, 0, 0, b"")
                    state.dead = state_.ENDED
        except (OSError, SpoolFull):
            return
        self.call()


tap: _Tap | None = None


def config(key: str, value: str) -> None:
    settings[key] = value


def config_complete() -> None:
    for disk in settings["disks"].split(","):
        name, size = disk.rsplit(":", 1)
        disks.append((name, int(size)))


def thread_model() -> int:
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def after_fork() -> None:
    global tap
    tap = _Tap()


def list_exports(readonly: bool, is_tls: bool) -> list[str]:
    return [name for name, _ in disks]


def _open(readonly: bool) -> int:
    wanted = nbdkit.export_name()
    for number, (name, _) in enumerate(disks):
        if name == wanted:
            return number
    raise builtins.KeyError(wanted)


def get_size(disk: int) -> int:
    return disks[disk][1]


def can_write(disk: int) -> bool:
    return True


def can_flush(disk: int) -> bool:
    return True


def can_trim(disk: int) -> bool:
    return False


def can_zero(disk: int) -> bool:
    return True  # Otherwise zeros would arrive as data.


def can_fast_zero(disk: int) -> bool:
    return True


def can_fua(disk: int) -> int:
    return int(nbdkit.FUA_NATIVE)


def can_multi_conn(disk: int) -> bool:
    return False


def block_size(disk: int) -> tuple[int, int, int]:
    return 1, 4096, LARGEST


def pread(disk: int, buffer: bytearray, offset: int, flags: int) -> None:
    buffer[:] = builtins.bytes(len(buffer))  # Nobody reads the target of a mirror.


def pwrite(disk: int, buffer: bytearray, offset: int, flags: int) -> None:
    assert tap is not None
    if len(buffer) > LARGEST:
        nbdkit.set_error(errno.EINVAL)
        raise builtins.ValueError("longer than any write that was offered")
    tap.take(Kind.DATA, disk, offset, len(buffer), buffer)  # type: ignore[arg-type]


def zero(disk: int, count: int, offset: int, flags: int) -> None:
    assert tap is not None
    tap.take(Kind.ZERO, disk, offset, count)


def flush(disk: int, flags: int) -> None:
    """Do nothing: a completed write is as safe as it can be."""


open = _open  # nbdkit's name for it
