# SPDX-License-Identifier: Apache-2.0
"""Recovery points at the destination: layers of the replica that are kept at an epoch, and opened read-only.

An epoch is applied at once. If recovery points are kept, its layer is then pinned, and the next epoch goes into a
new layer above. The layers' pins, ``point:EPOCH@TIME``, are the only record of points. A point that is open has a
second pin, of the server that serves it. That server ends with the daemon.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from seedship import clock, nbd, store
from seedship.errors import Conflict, HypervisorError, NotFound, PointNotFound
from seedship.hypervisor import Host
from seedship.model import groups, retention
from seedship.model.retention import TimedPoint
from seedship.model.spec import Retention, field, value_of
from seedship.paths import Paths
from seedship.replica import Layers, Replica
from seedship.workflows.context import HELD_S, Context, ReplicationStore
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.target import replica_files

_POINT: Final = "point:"
OPEN: Final = "open:"
PINNED: Final = "pinned:"
"""Begins the pin ``pinned:EPOCH@NAME`` of a point that an operator pinned (``pinning``)."""
_NAMED: Final = re.compile(rf"{_POINT}(\d+)@|(?:{replica_files.CLONE_KIND}|{replica_files.MEMORY})[^@]*@(\d+)$")
"""A pin that names the epoch of its layer."""


class KeptEpoch(msgspec.Struct, frozen=True):
    """A recovery point: an epoch that is kept."""

    epoch: int
    at: str
    """Time at which the epoch was applied, ISO 8601."""
    layer: int
    size: int
    """Bytes that the point's own layer occupies."""
    name: str = ""
    """The name that an operator pinned it with; empty: it is not pinned."""


def set_retention(replications: ReplicationStore, replication: str, history: Retention) -> None:
    """Set the retention of recovery points. Points beyond it are deleted with the next epoch.

    Raises:
        SettingInvalid: the retention exceeds what a replica may have.
    """
    value_of(field("retention"), history)
    replications.change_destination(replication, lambda d: msgspec.structs.replace(d, keep=history))


def after_epoch(context: Context, replication: str, replica: Replica, epoch: int, moment: str = "") -> None:
    """Pin the epoch just applied, if it is an instant of the source, and unpin points beyond the retention.

    Args:
        moment: Name of the common cut of a group that the epoch belongs to; empty if none. Such a point is kept as
            long as the group may need it.

    Points that were listed lately, or that a clone is about to use, stay for now.
    """
    _, document = context.replications.destination(replication)
    book, group = document.book, document.group
    common = groups.kept(moment, epoch)
    if group is None or common is None or common.group != group.id:
        common = None
    single = len(replica.layers.stack.layers) == 1
    if not (document.keep.wanted or common) and not any(_points(replica.layers)) and single:
        return
    whole = replica.missing_count == 0 and epoch >= max(1, book.consistent_from)
    again = epoch in {_epoch(name) for name, _ in _points(replica.layers)}  # A kill came after its pin.
    if (document.keep.wanted or common) and whole and not again:
        replica.layers.pin(_name(replica.layers, epoch))
        if common:
            replica.layers.pin_layer(replica.layers.stack.layers[-1].number, common.name)
    spared = _spared(context.replications, context.paths, document, replica.layers)
    with context.listing.lock:
        names = {_epoch(name): name for name in _expired(context.host, replica.layers, document.keep)}
        for beyond in context.listing.drop(replication, names.keys() - spared):
            replica.layers.unpin(names[beyond], merge=False)
    points = {_epoch(name) for name, _ in _points(replica.layers)}
    for kept in _kept(replica.layers):
        if group is None or kept.group != group.id or kept.epoch not in points:
            replica.layers.unpin(kept.name, merge=False)
    replica.layers.thin(lambda: context.locks.is_urgent(replication))


def common_moments(
    replications: ReplicationStore, paths: Paths, members: Sequence[str], group: str
) -> dict[int, dict[str, int]]:
    """Return the moments that all members have as recovery points, oldest first.

    Returns:
        The epoch of each member, by moment number and then by member.
    """
    by_member = {}
    for member in members:
        try:
            layers = replica_files.layers_of(replications, paths, member)
        except (NotFound, Conflict):
            return {}
        pins = [] if layers is None else _kept(layers)
        by_member[member] = {pin.number: pin.epoch for pin in pins if pin.group == group}
    numbers = groups.common(
        [groups.Kept(group, number, epoch) for number, epoch in epochs.items()] for epochs in by_member.values()
    )
    return {number: {m: epochs[number] for m, epochs in by_member.items()} for number in numbers}


def _spared(replications: ReplicationStore, paths: Paths, document: DestinationDocument, layers: Layers) -> set[int]:
    """Return the epochs that the replica's group may have to go back to, and those that pending clones need."""
    clones = {clone.epoch for clone in document.clones if clone.phase == "asked"}
    group = document.group
    if group is None:
        return clones
    own = [kept for kept in _kept(layers) if kept.group == group.id]
    common = list(common_moments(replications, paths, group.members, group.id))
    needed = groups.needed(own, common[-1] if common else None)
    return clones | {kept.epoch for kept in own if kept.number in needed}


def _kept(layers: Layers) -> list[groups.Kept]:
    pins = (groups.read(name) for layer in layers.stack.layers for name in layer.pins)
    return [pin for pin in pins if pin is not None]


def pinned(layers: Layers) -> set[int]:
    """Return the epochs that recovery points, clones and memory points may go back to."""
    named = (_NAMED.match(pin) for layer in layers.stack.layers for pin in layer.pins)
    return {int(match[1] or match[2]) for match in named if match}


def _epoch(name: str) -> int:
    return int(name.removeprefix(_POINT).partition("@")[0])


def pinned_names(layers: Layers) -> dict[int, str]:
    """Return the names of the points that an operator pinned, by epoch."""
    pins = (pin for layer in layers.stack.layers for pin in layer.pins if pin.startswith(PINNED))
    parts = (pin.removeprefix(PINNED).partition("@") for pin in pins)
    return {int(epoch): name for epoch, _, name in parts}


def list_points(context: Context, replication: str, hold: float = HELD_S) -> list[KeptEpoch]:
    """List the recovery points, oldest first; each can be opened for ``hold`` seconds from now."""
    with context.listing.lock:
        dropped = context.listing.dropped(replication)
        points = [
            point
            for point in _present(context.replications, context.paths, replication)
            if point.name or point.epoch not in dropped
        ]
        context.listing.hold(replication, [point.epoch for point in points], hold)
    return points


def _present(replications: ReplicationStore, paths: Paths, replication: str) -> list[KeptEpoch]:
    """List all points, including those that only a hold keeps, oldest first."""
    layers = replica_files.layers_of(replications, paths, replication)
    if layers is None:
        return []
    points, pins = [], pinned_names(layers)
    for name, layer in _points(layers):
        epoch, _, at = name.removeprefix(_POINT).partition("#")[0].partition("@")
        size = sum(_size(layers, disk, layer) for disk in range(len(layers.stack.names)))
        points.append(KeptEpoch(int(epoch), at, layer, size, pins.get(int(epoch), "")))
    return sorted(points, key=lambda point: point.epoch)


def find_point(context: Context, replication: str, epoch: int) -> KeptEpoch:
    """Return the point of an epoch.

    Raises:
        PointNotFound: it is not kept.
    """
    for point in _present(context.replications, context.paths, replication):
        if point.epoch == epoch:
            return point
    row, _ = context.replications.destination(replication)
    epochs = ", ".join(str(point.epoch) for point in list_points(context, replication))
    raise PointNotFound(row.vm_name, str(epoch), epochs or "none", row.id[:8])


@dataclass(frozen=True, slots=True)
class _Served:
    """A point that is open."""

    point: KeptEpoch
    stack: ExitStack
    """Closing it ends the point's servers."""
    sockets: dict[str, str]
    """Socket path of each disk, by target."""


class OpenPoints:
    """The points that are open at this site. All are closed when the daemon ends."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open: dict[tuple[str, int], _Served] = {}
        self._lock = threading.Lock()
        # The kernel ends a server with the thread that started it: this thread lives as long as the daemon.
        self._thread = ThreadPoolExecutor(1, "points")

    def open(self, replication: str, epoch: int | None) -> dict[str, Any]:
        """Serve a point read-only over NBD, on a unix socket for each disk. Repeating it is harmless.

        Without an epoch it is the newest point. Servers that ended meanwhile are restarted.

        Raises:
            PointNotFound: there is no such point.
            Conflict: there are no points at all.
        """
        row, document = self._context.replications.destination(replication)
        # Applying an epoch holds the lock, and may drop points.
        with (
            self._context.listing.using(row.id, epoch),
            self._context.locks.of(row.id, "step"),
            self._lock,
        ):
            if epoch is None:
                epoch = self._newest(row)
            key = row.id, epoch
            served = self._open.get(key)
            if served is None or not all(map(nbd.listens, served.sockets.values())):
                point = served.point if served else find_point(self._context, row.id, epoch)
                if served:
                    served.stack.close()
                layers = replica_files.layers_of(self._context.replications, self._context.paths, row.id)
                assert layers is not None
                layers.pin_layer(point.layer, f"{OPEN}{epoch}")
                served = self._thread.submit(_serve, layers, document, point).result()
                self._open[key] = served
        at, sockets = served.point.at, dict(served.sockets)
        uris = {target: nbd.uri(socket) for target, socket in sockets.items()}
        return {
            "epoch": epoch,
            "at": at,
            "export": nbd.EXPORT,
            "sockets": sockets,
            "uris": uris,
        }

    def _newest(self, row: store.Replication) -> int:
        points = _present(self._context.replications, self._context.paths, row.id)
        if not points:
            raise Conflict(
                f"The replica of {row.vm_name}",
                "has no recovery points",
                f"seedship point retain {row.id[:8]} --retention 10",
            )
        return points[-1].epoch

    def close(self, replication: str, epoch: int | None = None) -> int:
        """Close the open points of a replication (or only that of one epoch); returns how many there were."""
        row, _ = self._context.replications.destination(replication)
        with self._context.locks.of(row.id, "step"), self._lock:
            mine = [key for key in self._open if key[0] == row.id and epoch in (None, key[1])]
            for key in mine:
                self._open.pop(key).stack.close()
                layers = replica_files.layers_of(self._context.replications, self._context.paths, row.id)
                if layers is not None:
                    layers.unpin(f"{OPEN}{key[1]}", merge=False)
        return len(mine)

    def clear(self) -> None:
        """Unpin what an earlier daemon had open. Call it once, before anything is opened."""
        for row in self._context.catalog.replications.all():
            if (
                row.role == "destination"
                and (layers := replica_files.layers_of(self._context.replications, self._context.paths, row.id))
                is not None
            ):
                for layer in layers.stack.layers:
                    for name in layer.pins:
                        if name.startswith(OPEN):
                            layers.unpin(name, merge=False)


def _serve(layers: Layers, document: DestinationDocument, point: KeptEpoch) -> _Served:
    with ExitStack() as stack:
        sockets = {}
        for spec in document.at(point.epoch).disks:
            server = nbd.serve(
                layers.path(spec.index, point.layer),
                layers.format(spec.index, point.layer),
                read_only=True,
                force_share=True,
            )
            sockets[spec.target] = stack.enter_context(server)
        return _Served(point, stack.pop_all(), sockets)


def _points(layers: Layers) -> list[tuple[str, int]]:
    return [(name, layer.number) for layer in layers.stack.layers for name in layer.pins if name.startswith(_POINT)]


def _expired(host: Host, layers: Layers, history: Retention) -> list[str]:
    """Return the pins of points beyond the retention, and of some between others if the chain would be too long.

    Points that an operator pinned stay. They count for the chain.
    """
    points = {name: TimedPoint(_epoch(name), _times(name)[1]) for name, _ in _points(layers)}
    stay = pinned_names(layers).keys()
    kept = history.kept(points.values()) | stay
    left = [point for point in points.values() if point.epoch in kept]
    most = most_points(host) if len(left) > retention.NESTED_POINTS else len(left)
    wanted = retention.thinned((point for point in left if point.epoch not in stay), most - len(stay)) | stay
    return [name for name, point in points.items() if point.epoch not in wanted]


def most_points(host: Host) -> int:
    """Return the number of points of a replica at most: a failover must be able to start the VM on its newest layer."""
    try:
        libvirt, _ = host.version()
    except HypervisorError:  # A later epoch asks again.
        return retention.REPLICA_POINTS
    return retention.NESTED_POINTS if libvirt >= retention.NESTED_SINCE else retention.REPLICA_POINTS


def _name(layers: Layers, epoch: int) -> str:
    """Return the name of the pin of a point that is made now."""
    now = clock.now()
    before = [_times(name) for name, _ in _points(layers)[-2:]]
    at = retention.advance(before, math.floor(now.timestamp()))  # As exact as what is stored, so that nothing adds up.
    return f"{_POINT}{epoch}@{now.isoformat(timespec='seconds')}#{at:.0f}"


def _times(name: str) -> tuple[float, float]:
    """Return a point's time by the system clock, and by the clock of the points."""
    wall, _, at = name.partition("@")[2].partition("#")
    seconds = datetime.fromisoformat(wall).timestamp()
    return seconds, float(at or seconds)


def _size(layers: Layers, disk: int, layer: int) -> int:
    try:
        return layers.path(disk, layer).stat().st_blocks * 512
    except OSError:
        return 0
