# SPDX-License-Identifier: Apache-2.0
"""The source end of an open tap: its writes are sent to the destination, in order, in batches.

A batch is a segment of kind *tap*. Its blocks become unknown in the map, durably, before it leaves. The end of each
batch is also recorded before it leaves, so that a batch sent again, perhaps by the next daemon, is the same. The
destination reports how many batches it has. When all of them are durable there, the guest's writes are
acknowledged.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from seedship import clock, failpoints, hypervisor, segment, store, tap
from seedship.errors import (
    DestinationShort,
    HypervisorError,
    PeerError,
    PeerUnreachable,
    SeedshipError,
    TapFailed,
)
from seedship.hypervisor import Host
from seedship.model import BLOCK, Sealed, SegmentId
from seedship.paths import Paths
from seedship.runtime import Controller, Task, spawn
from seedship.units import MiB
from seedship.workflows import documents, messages
from seedship.workflows.context import Context, Interrupts, ReplicationStore
from seedship.workflows.documents import SourceDocument
from seedship.workflows.source.epochs import attempt as attempts
from seedship.workflows.source.epochs import closing
from seedship.workflows.source.snapshots import shape

log = logging.getLogger(__name__)

SOCKETS: Final = "tap"
"""Folder of a tap's sockets in the replication's work folder."""
_BATCH: Final = 2 * MiB
_REGION: Final = 16
"""Blocks that become unknown together: 1 MiB."""
_UNDER_WAY: Final = 16 * MiB
_IDLE_S: Final = 0.1
_LOOK_S: Final = 1.0
_STEP: Final = "tap"
"""The step to which a problem with sending a tap's writes is assigned."""
_SAMPLES: Final = 512
_END: Final = struct.Struct("<Q")


def tap_folder(paths: Paths, replication: str) -> Path:
    """Return the folder of a tap's log and batch records."""
    return paths.replication(replication) / "tap"


def process_of(paths: Paths, replication: str) -> tap.TapProcess | None:
    """Return the replication's tap process, as it was started last; None if there is none."""
    return tap.find(tap_folder(paths, replication), paths.work(replication) / SOCKETS)


class MirrorController:
    """Send the writes of every open tap, with a task for each, and detect taps that broke."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: dict[str, Task] = {}
        self._falls: dict[str, int] = {}
        self._waiting: defaultdict[str, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=_SAMPLES))
        """Samples of each replication's tap: a record number, and a time in seconds.

        All writes made before that time have at most that record number.
        """

    def controller(self) -> Controller:
        """Return the loop that does it."""
        return Controller("mirroring", self.poll, _LOOK_S / 2)

    def poll(self) -> None:
        """Check each tap, and start its task if none runs."""
        for row, document in self._context.known.sources():
            try:
                if document.tap is not None and document.tap.phase != "opening":
                    self._tend(row, document)
            except Exception:
                log.exception("checking the tap of %s failed", row.vm_name)

    def _tend(self, row: store.Replication, document: SourceDocument) -> None:
        assert document.tap is not None
        if document.tap.broken:
            return
        process = process_of(self._context.paths, row.id)
        if document.tap.phase == "open":  # Until then, the step that opens it checks itself.
            moment, upto = clock.monotonic(), 0 if process is None else process.state.appended
            why = broken(self._context.host, row.vm_uuid, document, process)
            if why := why or shape.attached(self._context.host, row.vm_uuid, document):
                _break(self._context.replications, self._context.interrupts, row.id, why)
                return
            if process is not None:  # It was mirrored up to here: the log holds all writes made before.
                self._note_age(row.id, process, moment, upto)
        if process is None:
            return
        process.mirror(document.spec.mirror == "sync")
        self._note_mode(row.id, process)
        task = self._tasks.get(row.id)
        if (task is None or not task.running) and not self._context.interrupts.detaching(row.id).is_set():
            self._tasks[row.id] = spawn(f"tap-{row.id[:8]}", partial(self._ship, row.id))

    def _note_age(self, replication: str, process: tap.TapProcess, moment: float, upto: int) -> None:
        """Note that ``upto`` was the last record at ``moment``.

        This gives the age of what the destination certainly has.
        """
        waiting = self._waiting[replication]
        if waiting and waiting[-1][0] > upto:  # Records of an earlier tap.
            waiting.clear()
        waiting.append((upto, moment))
        acked, ready = process.state.acked, process.state.ready
        if not ready or acked < ready:
            return
        delivered = None
        while waiting and waiting[0][0] <= acked:
            _, delivered = waiting.popleft()
        if delivered is not None:
            self._context.ages.delivered(replication, delivered)

    def _note_mode(self, replication: str, process: tap.TapProcess) -> None:
        """Report when writes stop waiting for the destination, and when they wait again."""
        falls = process.state.falls * 2 - process.state.synchronous
        before = self._falls.get(replication)
        self._falls[replication] = falls
        if before is not None and falls != before:
            kind = "tap-synchronous" if process.state.synchronous else "tap-asynchronous"
            self._context.catalog.events.note(replication, kind, {"times": process.state.falls})

    def _ship(self, replication: str) -> None:
        stop = self._context.interrupts.detaching(replication)
        with self._context.locks.of(replication, "tap"):
            process = process_of(self._context.paths, replication)
            _, document = self._context.replications.source(replication)
            if process is None or document.tap is None or document.tap.phase == "opening":
                return
            try:
                ship(self._context, replication, process, stop)
            except PeerError as error:
                _note_waits(self._context.replications, self._context.interrupts, replication, error)
                stop.wait(_LOOK_S)
            except SeedshipError as error:
                if not error.retry or isinstance(error, TapFailed | DestinationShort):
                    _break(self._context.replications, self._context.interrupts, replication, str(error))
                else:
                    _note_waits(self._context.replications, self._context.interrupts, replication, error)
                    stop.wait(_LOOK_S * 2)
            finally:
                process.close()


def broken(host: Host, vm: str, document: SourceDocument, process: tap.TapProcess | None) -> str:
    """Return why the tap takes no more writes; empty while it does."""
    if process is None:
        return "its process is gone"
    if not process.healthy:
        reason = process.reason
        if process.alive and not process.state.dead:  # Its supervisor is slow: the guest may be waiting.
            process.stop()
        return reason
    try:
        gone = hypervisor.unmirrored(host, vm, [spec.target for spec in document.disks])
    except HypervisorError as error:
        return "" if error.retry else str(error)
    return f"QEMU no longer mirrors {', '.join(gone)}" if gone else ""


def _break(replications: ReplicationStore, interrupts: Interrupts, replication: str, why: str) -> None:
    """Record that an open tap broke; the step that ends it is due then."""
    note_broken(replications, replication, why, open_=True)
    interrupts.detaching(replication).set()


def note_broken(replications: ReplicationStore, replication: str, why: str, *, open_: bool) -> None:
    """Record why a tap takes no more writes, or (not ``open_``) could not be opened. The first reason stays."""

    def change(d: SourceDocument) -> SourceDocument:
        if d.tap is None or (d.tap.phase == "open") != open_ or d.tap.broken:
            return d
        return d.with_tap(msgspec.structs.replace(d.tap, broken=why))

    replications.change_source(replication, change)


def _note_waits(replications: ReplicationStore, interrupts: Interrupts, replication: str, error: SeedshipError) -> None:
    """Record what keeps an open tap from being sent. The first cause stays until the tap is sent again."""
    log.info("the tap of %s waits: %s", replication[:8], error)
    row, document = replications.source(replication)
    known = document.problem is not None and document.problem.step == _STEP
    if known or interrupts.detaching(replication).is_set():
        return
    fresh = msgspec.structs.replace(documents.problem(_STEP, error), retry=True)
    problem = fresh.following(document.problem, clock.now().timestamp())

    def change(d: SourceDocument) -> SourceDocument:
        return msgspec.structs.replace(d, problem=problem) if d.tap is not None else d

    along = store.Along(events=[("problem", msgspec.to_builtins(problem))])
    replications.change_source(row.id, change, along=along)


def _note_flows(replications: ReplicationStore, replication: str) -> None:
    """Clear the problem: the tap is sent again."""

    def change(d: SourceDocument) -> SourceDocument:
        waited = d.problem is not None and d.problem.step == _STEP
        return msgspec.structs.replace(d, problem=None) if waited else d

    document = replications.source(replication)[1]
    if change(document) != document:
        replications.change_source(replication, change)


def ship(context: Context, replication: str, process: tap.TapProcess, stop: threading.Event) -> None:
    """Send the tap's writes until ``stop`` is set or its END is durable at the destination.

    Raises:
        PeerError, NoSpace: the destination; repeat.
        TapFailed, OrderError: nothing more can be sent.
    """
    _Shipper(context, replication, process, stop).run()


class _Shipper:
    def __init__(self, context: Context, replication: str, process: tap.TapProcess, stop: threading.Event) -> None:
        self._context, self._id, self._tap, self._stop = context, replication, process, stop
        self._row, self._document = context.replications.source(replication)
        assert self._document.tap is not None
        self._cut_id, self._epoch = self._document.tap.cut_id, self._document.tap.epoch
        self._maps = attempts.maps(context.paths, replication, self._document)
        self._regions: set[tuple[int, int]] = set()
        first = SegmentId(self._document.book.lineage, self._epoch, self._cut_id, 0)  # type: ignore[arg-type]
        self._writer = segment.SegmentWriter(
            first, context.keys.get(replication, "link"), "tap", context.keys.hash_key(replication), level=1
        )
        self._ends = _Ends(process.folder / "batches")
        self._carry: list[tap.SpoolRecord] = []
        self._ready = 0
        self._trimmed = process.state.trimmed
        self._judged = 0.0
        self._far_ready = False

    def run(self) -> None:
        state = self._ask("look")
        number = state.stored
        if state.total >= 0 or number > len(self._ends.all):
            raise TapFailed("the destination ended the tapped epoch")
        done = self._ends.all[number - 1] if number else 0
        tail = tap.Tail(self._tap.spool, done)
        waiting = 0
        ended = False
        with self._context.session.sink(
            self._row.peer, self._id, self._stop, kind="tap", trouble=self._trouble
        ) as sink:
            while not self._stop.is_set():
                records = self._next(tail, number)
                if records:
                    sink.put(self._batch(number, records))
                    failpoints.hit("tap.sent")
                    number, done = number + 1, records[-1].seq
                    waiting += sum(record.length for record in records)
                    ended = records[-1].kind == tap.Kind.END
                if waiting and (not records or ended or self._tap.state.mirror or waiting > _UNDER_WAY):
                    sink.barrier()
                    waiting = 0
                if not waiting:
                    self._settle(done)
                if ended:
                    return
                if not records:
                    self._tap.wait(_IDLE_S, tail.seq)

    def _trouble(self, error: PeerUnreachable | None) -> None:
        if error is not None:
            _note_waits(self._context.replications, self._context.interrupts, self._id, error)
        else:
            _note_flows(self._context.replications, self._id)

    def _next(self, tail: tap.Tail, number: int) -> list[tap.SpoolRecord]:
        """Return the records of the next batch; empty when there are none yet."""
        if not self._carry:
            self._carry = tail.read(_BATCH)
        if not self._carry:
            return []
        if number < len(self._ends.all):  # An earlier daemon began this batch: it must end at the same record.
            end = self._ends.all[number]
            while self._carry[-1].seq < end:
                more = tail.read(_BATCH)
                if not more:
                    raise TapFailed("its log is shorter than what was sent")
                self._carry += more
        else:
            marks = (tap.Kind.READY, tap.Kind.END)
            end = next((r.seq for r in self._carry if r.kind in marks), self._carry[-1].seq)
            self._ends.add(end)
        records = [record for record in self._carry if record.seq <= end]
        self._carry = self._carry[len(records) :]
        for record in records:
            if record.kind == tap.Kind.READY:
                self._ready = number + 1
        return records

    def _batch(self, number: int, records: Sequence[tap.SpoolRecord]) -> Sealed:
        self._forget(records)
        failpoints.hit("tap.forgotten")
        writer = self._writer
        writer.reset(SegmentId(writer.id.lineage, writer.id.epoch, writer.id.cut_id, number))
        for piece in tap.condense(records):
            if piece.data is None:
                writer.add_zero(piece.disk, piece.offset, piece.length)
            else:
                writer.add_data(piece.disk, piece.offset, piece.data)
        return writer.seal()

    def _forget(self, records: Sequence[tap.SpoolRecord]) -> None:
        """Mark the blocks that the records change as unknown, durably."""
        fresh = set()
        step = _REGION * BLOCK
        for record in records:
            if record.length:
                last = (record.offset + record.length - 1) // step
                fresh |= {(record.disk, n) for n in range(record.offset // step, last + 1)}
        fresh -= self._regions
        for disk in {disk for disk, _ in fresh}:
            self._maps[disk].mark_unknown((number * _REGION, _REGION) for of, number in fresh if of == disk)
            self._maps[disk].flush()
        self._regions |= fresh

    def _settle(self, done: int) -> None:
        """Acknowledge the records up to ``done``, which are durable at the destination."""
        if done > self._tap.state.acked:
            self._trimmed += tap.trim(self._tap.spool, done)
            self._tap.acknowledge(done, self._trimmed)
        if not self._far_ready and self._tap.state.ready and done >= self._tap.state.ready:
            self._ask("ready", self._ready or self._ends.after(self._tap.state.ready))
            self._far_ready = True
        now = clock.monotonic()
        if now - self._judged > _LOOK_S:
            self._judged = now
            _note_flows(self._context.replications, self._id)
            with suppress(PeerError):
                closing.judge_round(self._context.replications, self._context.session, self._id, lag=self._lag())

    def _lag(self) -> int:
        """Return the most bytes that the guest wrote and the destination may not have yet."""
        kept = 0
        for path in self._tap.spool.glob("*.log"):
            with suppress(OSError):  # The tap deletes what was acknowledged.
                kept += path.stat().st_size
        unacknowledged = self._tap.state.appended - self._tap.state.acked
        return min(kept, unacknowledged * MiB)

    def _ask(self, action: str, count: int = 0) -> messages.TapState:
        request = messages.AskTap(self._id, self._cut_id, action, count)  # type: ignore[arg-type]
        return self._context.session.call(self._row.peer, messages.TAP, request)


class _Ends:
    """The last record of each batch, written to a file before the batch leaves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        data = path.read_bytes() if path.exists() else b""
        self.all = [end for (end,) in _END.iter_unpack(data[: len(data) // 8 * 8])]

    def add(self, end: int) -> None:
        with open(self._path, "ab") as file:
            file.write(_END.pack(end))
        self.all.append(end)

    def after(self, seq: int) -> int:
        """Return how many batches are needed to include record ``seq``."""
        return next(n for n, end in enumerate(self.all, 1) if end >= seq)
