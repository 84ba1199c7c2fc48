# SPDX-License-Identifier: Apache-2.0
"""Live migration of a VM's memory and top overlays, with a watchdog.

The migration is always PAUSED: the copy at the destination never runs by libvirt's own decision. It
is never PERSIST_DEST. Post-copy is not possible with PAUSED. libvirt 9.0 can hang for ever if only
the memory channel dies. So the call runs in a thread, and is ended (``abortJob``, repeatedly) when
nothing moves any more or the caller requests it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import libvirt

from seedship import clock
from seedship.errors import HypervisorBusy, MigrationFailed, NotConverging, SeedshipError
from seedship.hypervisor.connection import Host, find
from seedship.hypervisor.downtime import Downtime
from seedship.hypervisor.holding import DOWNTIME_MS, MigrationHold
from seedship.hypervisor.outcome import Departure, FinishListener
from seedship.units import MiB

FLAGS: Final = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PAUSED | libvirt.VIR_MIGRATE_NON_SHARED_INC
XBZRLE: Final = "xbzrle"
_POLL_S: Final = 0.05
_STILL_S: Final = 30.0
"""Timeout without any progress, after which the migration is canceled."""
_CONVERGE_S: Final = 20.0
"""Timeout without a decrease of remaining disk data: the guest writes faster than the link carries."""
_STEP: Final = MiB
_END_S: Final = 120.0
"""Seconds for which an abandoned migration is aborted repeatedly before its thread is left alone."""
_ESCAPED: Final = (
    "it came to its end before it was approved, and was taken back: it "
    "has too little memory in use to be held so (--hold without --precopy)"
)
_HOLD_POLL_S: Final = 0.01
_ASIDE_S: Final = 3.0
"""Seconds without queries once the destination has everything."""
_OUT: Final = (libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT,)
_log: Final = logging.getLogger(__name__)
_WATCHED: Final = ("data_processed", "memory_processed", "disk_processed", "memory_iteration")


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration transferred, as QEMU counted it."""

    memory_bytes: int
    disk_bytes: int
    downtime_ms: int
    seconds: float


class Move:
    """A migration whose outcome is certain: the process here is gone, and the copy there is whole and paused."""

    def __init__(self, host: Host, vm: str, call: _Call, watch: _Watch, began: float) -> None:
        self._host, self._vm, self._call, self._watch = host, vm, call, watch
        self._seconds = clock.monotonic() - began

    def finish(self) -> Migration:
        """Wait until libvirt's call has ended too, which changes nothing any more. Returns what was transferred."""
        if not self._call.ended.wait(_END_S) or self._call.error is not None:
            _log.warning("%s is gone, and libvirt reports: %s", self._vm, self._call.error or "nothing")
        return _result(self._host, self._vm, self._watch, self._seconds)


def migrate(
    host: Host,
    vm: str,
    *,
    gate_socket: str,
    definition: str,
    targets: Sequence[str],
    memory_socket: str,
    disks_socket: str,
    listener: FinishListener,
    bandwidth: int = 0,
    downtime_ms: int = 300,
    throttle: bool = False,
    auto_converge: bool = True,
    xbzrle_cache: int = 0,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
    hold: MigrationHold | None = None,
    refers: bool = False,
) -> Move:
    """Move a running VM. Afterwards its process here is gone and its copy at the destination is paused.

    All three sockets are needed until the move is finished.

    Args:
        gate_socket: Leads to the gate before the destination's libvirtd, whose replies ``listener``
            receives.
        memory_socket, disks_socket: Lead to where the destination's QEMU listens.
        bandwidth: Bytes per second, 0 for no limit.
        downtime_ms: Maximum that QEMU may predict for the last leg before it stops the processors;
            less is tried first.
        throttle: The guest's writes wait for the destination, so the migration ends however much
            the guest writes.
        auto_converge: QEMU slows the processors if memory changes faster than it is sent.
        xbzrle_cache: Bytes. Resent pages in this cache are sent as their changes only.
        hold: The migration ends only when this is released.
        refers: The first pass over the memory may refer to pages instead of sending them.

    Raises:
        MigrationFailed: It failed, or its outcome is unknown. Inspect both sites before acting.
        NotConverging: The guest writes faster than the link carries; the migration was abandoned.
        VmNotFound, VmNotRunning, HypervisorUnreachable: It did not start.
    """
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_DEST_XML: definition,
        libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: list(targets),
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{memory_socket}",
        libvirt.VIR_MIGRATE_PARAM_DISKS_URI: f"unix://{disks_socket}",
    }
    if bandwidth:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, bandwidth >> 20)
    flags = FLAGS
    if throttle:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES
    if auto_converge:
        flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
    if xbzrle_cache:
        flags |= libvirt.VIR_MIGRATE_COMPRESSED
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = XBZRLE
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE] = xbzrle_cache
    uri, decided = f"qemu+unix:///system?socket={gate_socket}", threading.Event()
    departure = Departure(host, vm, listener, decided)
    departure.start()
    try:
        with host.calling(vm) as domain:
            name, began = domain.name(), clock.monotonic()
            call = _Call(domain, uri, parameters, flags, decided)
            call.start()
            watch = _Watch(progress)
            hopeless = _attend(domain, name, decided, listener, watch, downtime_ms, throttle, stop, hold, refers)
            if call.ended.is_set() and call.error is not None and not departure.certain:
                if hold is not None and hold.escaped:
                    raise MigrationFailed(name, _ESCAPED)
                raise NotConverging(name) if hopeless else MigrationFailed(name, call.error)
            return Move(host, vm, call, watch, began)
    finally:
        departure.forget()


def _attend(
    domain: Any,
    name: str,
    decided: threading.Event,
    listener: FinishListener,
    watch: _Watch,
    downtime_ms: int,
    throttle: bool,
    stop: threading.Event | None,
    hold: MigrationHold | None,
    refers: bool,
) -> bool:
    """Wait for an outcome. Returns whether the migration was abandoned because the guest writes too fast.

    Raises:
        MigrationFailed: libvirt does not end it.
    """
    ending: float | None = None
    finished: float | None = None
    asked, hopeless = -1, False
    downtime = Downtime(downtime_ms, refers=refers)
    ended: SeedshipError | None = None
    while not decided.wait(_POLL_S if hold is None or hold.released else _HOLD_POLL_S):
        now = clock.monotonic()
        if listener.finished.is_set():
            # libvirt holds the VM while it ends the process. A query would wait for that, and the
            # guest with it.
            finished = finished or now
            if now - finished < _ASIDE_S:
                continue
        stats = _stats(domain)
        held = hold is not None and not hold.released
        pause = DOWNTIME_MS if held else downtime.at(int(stats.get("memory_iteration", 0)), now)
        if asked != pause and stats.get("operation") and _set_downtime(domain, pause):
            asked = pause
        if hold is not None and ending is None:
            try:
                hold.tend(stats)
            except SeedshipError as error:
                ended, ending = error, now
        if ending is None and not throttle and watch.hopeless(stats, now):
            hopeless, ending = True, now
        still = watch.still(stats, now) and not held
        if ending is None and (still or (stop is not None and stop.is_set())):
            ending = now
        if ending is not None:
            _abort(domain)
            if now - ending > _END_S:
                raise MigrationFailed(name, "libvirt does not end it")
    if ended is not None and not listener.finished.is_set():
        raise ended
    return hopeless


def abandon_migration(host: Host, vm: str) -> None:
    """End an outgoing migration that a killed process of ours left. Repeatable.

    Raises:
        HypervisorBusy: It does not end.
        VmNotFound: The host has no such VM.
    """
    deadline = clock.monotonic() + _END_S
    with host.calling(vm) as domain:
        while domain.isActive():
            stats = _stats(domain)
            if stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE or stats.get("operation") not in _OUT:
                return
            if clock.monotonic() > deadline:
                raise HypervisorBusy(domain.name(), "its migration does not end")
            _abort(domain)
            time.sleep(_POLL_S)


class _Call:
    """The blocking call, in a thread of its own."""

    def __init__(
        self,
        domain: Any,
        uri: str,
        parameters: dict[str, Any],
        flags: int,
        decided: threading.Event,
    ) -> None:
        self._domain, self._uri, self._parameters, self._flags = domain, uri, parameters, flags
        self._decided = decided
        self.ended = threading.Event()
        self.error: str | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="libvirt-migrate", daemon=True).start()

    def _run(self) -> None:
        connection = None
        try:
            connection = libvirt.open(self._uri)
            self._domain.migrate3(connection, self._parameters, self._flags)
        except libvirt.libvirtError as error:
            self.error = str(error) or "libvirt gave no reason"
        finally:
            self.ended.set()
            self._decided.set()
            if connection is not None:
                try:
                    connection.close()
                except libvirt.libvirtError:
                    pass  # The gate closed it.


class _Watch:
    """Whether anything moves, and the progress."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._last: tuple[int, ...] = ()
        self._since = clock.monotonic()
        self._least: tuple[int, float] | None = None
        self.memory = self.disk = 0

    def hopeless(self, stats: dict[str, Any], now: float) -> bool:
        """Whether the disks' remaining data no longer decreases, judged by its minima.

        Memory comes after it and has its own remedy.
        """
        if not stats.get("disk_total") or stats.get("memory_total"):
            self._least = None
            return False
        remaining = int(stats.get("disk_remaining", 0))
        if self._least is None or remaining <= self._least[0] - _STEP:
            self._least = (remaining, now)
        return now - self._least[1] > _CONVERGE_S

    def still(self, stats: dict[str, Any], now: float) -> bool:
        seen = tuple(int(stats.get(key, 0)) for key in _WATCHED)
        self.memory = max(self.memory, seen[1])
        self.disk = max(self.disk, seen[2])
        if seen != self._last:
            self._last, self._since = seen, now
        if self._progress is not None and stats.get("data_total"):
            self._progress(int(stats.get("data_processed", 0)), int(stats["data_total"]))
        return now - self._since > _STILL_S


def _stats(domain: Any) -> dict[str, Any]:
    try:
        return dict(domain.jobStats())
    except libvirt.libvirtError:
        return {}  # Between its states, or gone.


def _set_downtime(domain: Any, milliseconds: int) -> bool:
    try:
        domain.migrateSetMaxDowntime(milliseconds, 0)
    except libvirt.libvirtError:
        return False
    return True


def _abort(domain: Any) -> None:
    try:
        domain.abortJob()
    except libvirt.libvirtError:
        pass  # It is ending, or has not started; the caller repeats this.


def _result(host: Host, vm: str, watch: _Watch, seconds: float) -> Migration:
    stats: dict[str, Any] = {}
    try:
        domain = find(host.connection(), vm)
        stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    except libvirt.libvirtError:
        pass  # libvirt forgets a transient VM when its process ends: use the last observed figures.
    return Migration(
        int(stats.get("memory_processed", watch.memory)),
        int(stats.get("disk_processed", watch.disk)),
        int(stats.get("downtime", 0)),
        seconds,
    )
