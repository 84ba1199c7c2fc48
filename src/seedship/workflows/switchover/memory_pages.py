# SPDX-License-Identifier: Apache-2.0
"""Memory that both sites have on disks: the source's index of its disks, and the replica's pages at the destination.

Most of a guest's memory is a cache of its disks, and the replica has these. The source reads images that
nothing writes to any more, below the overlays of the attempt. At the destination the replica is frozen below the
copy's disks. Both read beside the guest, before and while it runs; neither is needed: what is not found, or
cannot be read, is sent.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from seedship import capture, clock, failpoints, hypervisor, link, nbd
from seedship.errors import NbdFailed, SeedshipError
from seedship.model import DiskSpec
from seedship.runtime import spawn
from seedship.units import GiB, KiB, MiB
from seedship.workflows.context import Context
from seedship.workflows.switchover import incoming
from seedship.workflows.switchover.tunnels import prepared
from seedship.workflows.target import layers_of

log = logging.getLogger(__name__)

_PIECE: Final = 4 * MiB
_LEAST_S: Final = 2.0
_MOST_S: Final = 60.0
_SECONDS_A_GIB: Final = 1.0
"""Time for the index by the guest's memory. To send that memory takes several times longer."""
_POLL_S: Final = 0.1
_PATIENCE_S: Final = 2.0
_WINDOW: Final = 64 * GiB
"""Which parts of a disk have data is asked for this much of it at once."""
_GAP: Final = 16 * KiB
_SPAN: Final = 256 * KiB
"""Pages that are this close are read at once, up to this many bytes."""


class DiskIndex:
    """Reads a VM's disks into an index, in the background."""

    def __init__(self, context: Context, vm: str, disks: Sequence[DiskSpec], memory: int, rate: int) -> None:
        """Begin.

        Args:
            disks: Their images below the first one are not written to any more.
            memory: Bytes of the guest's memory, which limits the time.
            rate: Bytes per second that are read at most; 0 for no limit.
        """
        self._context, self._vm, self._disks = context, vm, disks
        self._index = link.PageIndex()
        self._stop = threading.Event()
        self._limit = capture.ReadLimit(rate, self._stop)
        self._until = clock.monotonic() + min(_MOST_S, max(_LEAST_S, memory / GiB * _SECONDS_A_GIB))
        self._task = spawn("page-index", self._run)

    def finish(self, stop: threading.Event) -> link.PageIndex | None:
        """Return what was read in time, or until ``stop`` was set; None if that is nothing."""
        while not stop.is_set() and clock.monotonic() < self._until and not self._task.wait(_POLL_S):
            pass
        self.close()
        if not len(self._index):
            return None
        self._index.seal()
        return self._index

    def close(self) -> None:
        """End the reading."""
        self._stop.set()
        self._task.wait()

    def _run(self) -> None:
        capture.give_way()
        try:
            vm = hypervisor.inspect(self._context.host, self._vm)
            chains = {disk.target: disk.chain for disk in vm.disks}
        except SeedshipError as error:
            log.info("memory is sent without the pages of the disks: %s", error)
            return
        for spec in self._disks:
            for image in chains.get(spec.target, ())[1:2]:
                try:
                    self._read(spec.index, image)
                except (SeedshipError, OSError) as error:
                    log.info("memory is sent without the pages of %s: %s", spec.target, error)

    def _read(self, disk: int, image: hypervisor.ImageLayer) -> None:
        buffer = memoryview(bytearray(_PIECE))
        with (
            nbd.serve(Path(image.path), image.format, read_only=True, force_share=True) as socket,
            nbd.Reader(socket, nbd.EXPORT, [nbd.BASE_ALLOCATION], patience=_PATIENCE_S) as reader,
        ):
            for offset, length in _pieces(reader):
                if self._stop.is_set() or self._index.is_full or clock.monotonic() > self._until:
                    return
                piece = buffer[:length]
                self._limit.take(length)
                reader.read_into(piece, offset)
                self._index.add(disk, offset // link.PAGE, piece)


class ReplicaPages:
    """The frozen disks of the replica that an attempt has prepared."""

    def __init__(self, context: Context, peer: link.Peer, attempt: str) -> None:
        """Nothing is opened before the first page is read."""
        self._context, self._peer, self._attempt = context, peer, attempt
        self._lock = threading.Lock()
        self._open: dict[int, nbd.Reader] = {}
        self._opened = ExitStack()
        self._over = False

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the pages at (disk, page number).

        Raises:
            SeedshipError: One is not there or cannot be read, or no such attempt is prepared. No
                other is read afterwards.
        """
        failpoints.hit("takeover.page-read")
        with self._lock:
            if self._over:
                raise NbdFailed("read of a replica's page", "nothing more is read")
            try:
                return self._read(places)
            except (SeedshipError, OSError):
                self._over = True
                raise

    def close(self) -> None:
        """End the reading."""
        with self._lock:
            self._over = True
            self._opened.close()

    def _read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        contents: dict[tuple[int, int], bytes] = {}
        for disk, first, count in _spans(places):
            reader = self._reader(disk)
            if (first + count) * link.PAGE > reader.size:
                raise NbdFailed("read of a replica's page", "the disk ends before it")
            buffer = bytearray(count * link.PAGE)
            reader.read_into(buffer, first * link.PAGE)
            for number in range(count):
                contents[disk, first + number] = bytes(buffer[number * link.PAGE : (number + 1) * link.PAGE])
        return [contents[place] for place in places]

    def _reader(self, disk: int) -> nbd.Reader:
        if disk not in self._open:
            row, document = prepared(self._context, self._peer, self._attempt)
            layers = layers_of(self._context.replications, self._context.paths, row.id)
            if layers is None or disk not in {spec.index for spec in document.disks}:
                raise NbdFailed("read of a replica's page", "it has no such disk")
            frozen = layers.check_pinned(incoming.PIN)
            server = nbd.serve(layers.path(disk, frozen), layers.format(disk, frozen), read_only=True, force_share=True)
            socket = self._opened.enter_context(server)
            reader = nbd.Reader(socket, nbd.EXPORT, patience=_PATIENCE_S)
            self._open[disk] = self._opened.enter_context(reader)
        return self._open[disk]


def _pieces(reader: nbd.Reader) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what to read of a disk."""
    for begin in range(0, reader.size, _WINDOW):
        for offset, length in nbd.data_ranges(reader, min(reader.size, begin + _WINDOW), begin):
            for at in range(offset, offset + length, _PIECE):
                yield at, min(_PIECE, offset + length - at)


def _spans(places: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (disk, first page, count) of ranges that hold all places."""
    spans: list[tuple[int, int, int]] = []
    for disk, page in sorted(set(places)):
        if spans:
            last, first, count = spans[-1]
            near = (page - first - count) * link.PAGE <= _GAP and (page + 1 - first) * link.PAGE <= _SPAN
            if last == disk and near:
                spans[-1] = (disk, first, page + 1 - first)
                continue
        spans.append((disk, page, 1))
    return spans
