# SPDX-License-Identifier: Apache-2.0
"""What is reserved for each replication to this site, as measured last: a file system that hangs holds up nobody else.

The images of replicas are measured by one thread for each file system, which callers wait for only briefly. Until it
answers, what was measured before counts. A replication that was never measured counts with all that it announced.

A measurement may be a minute old: data that arrived since then is counted twice, as used and as reserved, so that a
request is never promised room that is not there. Before a request is refused, all is measured again.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from seedship import clock, store
from seedship.model import lifecycle
from seedship.runtime import mount_of, mounts, spawn
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.provisioning.reserving import Reservation, Survey, reservation_of

MEASURED_S: Final = 60.0
"""Age up to which a measurement counts for a request that it lets through."""
_PATIENCE_S: Final = 2.0
"""Seconds that a caller waits for file systems."""
_Row = tuple[store.Replication, DestinationDocument]


@dataclass(frozen=True, slots=True)
class _Measured:
    document: DestinationDocument
    at: float
    survey: Survey
    reservation: Reservation


class _Remembered(Survey):
    """What was measured before; nothing is asked of a file system."""

    def __init__(self, known: Survey | None, places: Mapping[Path, tuple[int, str]]) -> None:
        super().__init__()
        self._all = places
        if known is not None:
            self.take(known)

    def allocated(self, path: Path) -> int | None:
        """As ``Survey``; 0 if it was not measured."""
        return self.held.get(path, 0)

    def file_system(self, folder: Path) -> tuple[int, str]:
        """As ``Survey``; by the kernel's list of mounts if nothing above it was measured."""
        for at in (folder, *folder.parents):
            if at in self.places or at in self._all:
                return self.places.get(at) or self._all[at]
        return _mounted(folder)


class Holdings:
    """The measurements of one site. Safe for concurrent threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured: dict[str, _Measured] = {}
        self._places: dict[Path, tuple[int, str]] = {}
        self._busy: dict[str, tuple[Future[None], float]] = {}
        """By mount point: a measurement that is under way, and since when."""

    def measure(self, context: Context, older_than_s: float = 0.0) -> None:
        """Measure what changed, and what was measured longer ago than that. Waits briefly."""
        began = clock.monotonic()
        rows = _rows(context)
        with self._lock:
            for gone in self._measured.keys() - {row.id for row, _ in rows}:
                del self._measured[gone]
            stale = [
                (row, document)
                for row, document in rows
                if (known := self._measured.get(row.id)) is None
                or known.document is not document
                or began - known.at >= older_than_s
            ]
        groups = _by_mount(stale)
        with self._lock:
            earlier = [self._busy[mount][0] for mount in groups.keys() & self._busy.keys() - self._silent()]
        wait(earlier, _PATIENCE_S)
        with self._lock:
            mine = [self._begin(context, mount, group) for mount, group in groups.items() if mount not in self._busy]
        wait(mine, max(0.0, began + _PATIENCE_S - clock.monotonic()))

    def reservations(self, context: Context) -> list[Reservation]:
        """Return what is reserved by what was measured last, oldest replication first."""
        with self._lock:
            measured, places, silent = dict(self._measured), dict(self._places), self._silent()
        held = []
        points = mounts() if silent else {}
        for row, document in _rows(context):
            known = measured.get(row.id)
            if known is not None and known.document is document:
                reservation = known.reservation
            else:
                survey = _Remembered(None if known is None else known.survey, places)
                reservation = reservation_of(context, row, document, survey)
            if silent and mount_of(document.folder, points) in silent:
                reservation = replace(reservation, answers=False)
            held.append(reservation)
        return held

    def _silent(self) -> set[str]:
        """Return the mount points that have not answered for a while. The lock is held."""
        late = clock.monotonic() - _PATIENCE_S
        return {mount for mount, (_, since) in self._busy.items() if since <= late}

    def _begin(self, context: Context, mount: str, rows: list[_Row]) -> Future[None]:
        """Measure replicas on one file system on a thread. The lock is held."""
        future: Future[None] = Future()
        self._busy[mount] = future, clock.monotonic()
        spawn(f"measure-{mount}", partial(self._run, context, mount, rows, future))
        return future

    def _run(self, context: Context, mount: str, rows: list[_Row], future: Future[None]) -> None:
        try:
            for row, document in rows:
                survey, now = Survey(), clock.monotonic()
                reservation = reservation_of(context, row, document, survey)
                with self._lock:
                    self._measured[row.id] = _Measured(document, now, survey, reservation)
                    self._places |= {Path(where): (device, where) for device, where in survey.places.values()}
        finally:
            with self._lock:
                del self._busy[mount]
            future.set_result(None)


_all: weakref.WeakKeyDictionary[Context, Holdings] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def of(context: Context) -> Holdings:
    """Return the measurements of a site."""
    with _making:
        return _all.setdefault(context, Holdings())


def reservations(context: Context, *, but: str = "", measure: bool = True) -> list[Reservation]:
    """Return the reservations of all replications to this site that have not ended, oldest first.

    Args:
        but: Id of a replication that is left out.
        measure: Measure all images now, as far as their file systems answer.
    """
    if measure:
        of(context).measure(context)
    return [held for held in of(context).reservations(context) if held.replication != but]


def _rows(context: Context) -> list[_Row]:
    return [
        (row, document)
        for row, document in context.known.destinations()
        if row.state not in lifecycle.ENDED or document.clones
    ]


def _by_mount(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    grouped: dict[str, list[_Row]] = {}
    points: dict[str, str] = {}
    for row, document in rows:
        points = points or mounts()
        grouped.setdefault(mount_of(document.folder, points), []).append((row, document))
    return grouped


def _mounted(folder: Path) -> tuple[int, str]:
    """Return the device of a folder's mount, and the mount point, without asking the file system."""
    known = mounts()
    point = mount_of(folder, known)
    major, _, minor = known.get(point, "0:0").partition(":")
    return os.makedev(int(major), int(minor)), point
