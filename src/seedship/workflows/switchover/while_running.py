# SPDX-License-Identifier: Apache-2.0
"""Live switchover up to the point of no return: overlays, last epoch, libvirt's migration through the gate.

    verify, overlays at T1, an epoch cut at T2 >= T1, applied at B   - the guest runs here
    B prepares; migration of memory and overlays, PAUSED

The overlays hold every write since T1, so they mask whatever else the epoch of T2 contains.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from seedship import clock, failpoints, hypervisor, store
from seedship.errors import MigrationFailed, SwitchoverDeclined
from seedship.link import PAGE, PageIndex
from seedship.link.valve import TunnelGate, Valve
from seedship.model.books.ownership import SourceHandover
from seedship.paths import Paths
from seedship.units import GiB, MiB
from seedship.workflows import messages
from seedship.workflows.context import Context
from seedship.workflows.documents import Order, SourceDocument
from seedship.workflows.host import clear_leftovers, make_folder, written_disks
from seedship.workflows.provisioning import read_platform
from seedship.workflows.source import guarded_space, lift_write_limit, send_epoch, verify_replica, wait_applied
from seedship.workflows.switchover import group_switchover, orders
from seedship.workflows.switchover.memory_pages import DiskIndex

_CACHE_LEAST: Final = 16 * MiB
_CACHE_MOST: Final = GiB
_TRIPS: Final = 3
_LOOK_S: Final = 0.5
_OFTEN: Final = 2.0
"""Writes to one disk per round trip above which the next write surely comes too soon: writes come in bursts."""


def attempt(context: Context, replication: str, handover: SourceHandover, kept: ExitStack) -> None:
    """Migrate until the memory has certainly arrived and the process here is gone.

    ``kept`` then holds what libvirt needs to end its call. Closing it waits for that; the guest
    does not wait.

    Raises:
        SeedshipError: The migration failed, or its outcome is unknown.
    """
    try:
        with guarded_space(context, replication):
            _attempt(context, replication, handover, kept)
    except MigrationFailed as error:
        row, document = context.replications.source(replication)
        if document.is_declined:
            raise SwitchoverDeclined(row.vm_name) from error
        raise


def _attempt(context: Context, replication: str, handover: SourceHandover, kept: ExitStack) -> None:
    row, document = context.replications.source(replication)
    order = document.order or Order()
    vm, began = row.vm_uuid, clock.monotonic()
    if document.needs_comparison:
        context.progress.begin(replication, "verify")
        verify_replica(context, replication, rest=True)
    context.progress.begin(replication, "last rounds")
    send_epoch(context, replication)
    facts = hypervisor.inspect(context.host, vm)
    written = written_disks(facts, document.disks)
    overlays = {d.target: Path(_overlay(context.paths, replication, handover, d.target)) for d in written}
    clear_leftovers(context, replication, insist=True)
    if document.spec.capture == "bitmap":  # Otherwise the child disk of the last cut takes the overlay's place.
        hypervisor.push_overlay(context.host, vm, overlays)
    failpoints.hit("switchover.overlays")
    last = send_epoch(context, replication)
    index = DiskIndex(context, vm, written, facts.memory, document.spec.export_rate)
    kept.callback(index.close)
    wait_applied(context, replication, awaited=True)
    failpoints.hit("switchover.last-epoch")
    lift_write_limit(context, replication)  # Otherwise the write limit would travel with the definition.
    throttle = _outpaces(context, row, document) if order.throttle is None else order.throttle
    _, document = context.replications.source(replication)
    definition = hypervisor.live_xml(context.host, vm, migratable=True)
    ready = context.session.call(
        row.peer,
        messages.PREPARE,
        messages.Prepare(
            replication,
            handover.attempt,
            handover.generation,
            document.book.epoch,
            definition,
            platform=read_platform(row.vm_name, definition),
            accepted=document.spec.accept_loss,
        ),
        60.0,
    )
    failpoints.hit("switchover.prepared")
    known = index.finish(context.interrupts.stopping(replication)) if ready.pages else None
    index.close()  # A destination of the previous version has no use for it.
    group_switchover.gate(context, replication)
    folder = context.paths.attempt(replication, handover.attempt)
    make_folder(folder)
    sockets = {kind: folder / f"{kind}.sock" for kind in ("gate", "memory", "overlay")}
    context.progress.begin(replication, "memory")
    prepared = clock.monotonic() - began
    listener = hypervisor.FinishListener()
    valves: dict[str, TunnelGate] = {}
    hold = None
    if order.precopy and not order.approved:
        valve = Valve()
        hold = hypervisor.MigrationHold(
            valve,
            partial(orders.is_approved, context, replication),
            partial(orders.precopied, context, replication),
        )
        valves = {"memory": valve, "gate": hold}
    kept.enter_context(
        context.session.tunnels(
            row.peer, handover.attempt, sockets, hear={"gate": listener.feed}, valves=valves, index=known
        )
    )
    move = hypervisor.migrate(
        context.host,
        vm,
        gate_socket=str(sockets["gate"]),
        definition=ready.definition,
        targets=[spec.target for spec in written],
        memory_socket=str(sockets["memory"]),
        disks_socket=str(sockets["overlay"]),
        listener=listener,
        downtime_ms=order.downtime_ms or round(document.spec.downtime * 1000),
        throttle=throttle,
        auto_converge=order.auto_converge,
        xbzrle_cache=_cache(definition) if order.xbzrle else 0,
        stop=context.interrupts.stopping(replication),
        progress=lambda done, total: context.progress.report(replication, done, total),
        hold=hold,
        refers=known is not None,
    )
    failpoints.hit("switchover.migrated")
    timing = {"prepare_ms": int(prepared * 1000), "last_epoch": last.changed}
    kept.callback(_note, context, replication, move, timing, known)


def _cache(definition: str) -> int:
    """Return the size of XBZRLE's cache in bytes: 1/4 of the memory, bounded. QEMU requires a power of two."""
    quarter = hypervisor.describe(definition).memory // 4
    return 1 << max(min(quarter, _CACHE_MOST), _CACHE_LEAST).bit_length() - 1


def _outpaces(context: Context, row: store.Replication, document: SourceDocument) -> bool:
    """Whether the guest writes again before a write has gone to the destination and back.

    QEMU's mirrors are ready when no write is in flight and no data is left. With such a guest that
    moment never comes, however little it writes, unless its writes wait (block/mirror.c,
    ``mirror_run``).
    """
    targets = [spec.target for spec in document.disks]
    before, began = hypervisor.write_requests(context.host, row.vm_uuid, targets), clock.monotonic()
    trips = []
    for _ in range(_TRIPS):
        sent = clock.monotonic()
        context.session.hello(row.peer)
        trips.append(clock.monotonic() - sent)
    context.stop.wait(max(0.0, began + _LOOK_S - clock.monotonic()))
    now, took = (
        hypervisor.write_requests(context.host, row.vm_uuid, targets),
        clock.monotonic() - began,
    )
    most = max(now[target] - before[target] for target in targets) / took
    outpaces = bool(most * min(trips) > _OFTEN)
    if outpaces:
        facts = {"writes": round(most), "trip_ms": round(min(trips) * 1000)}
        context.catalog.events.note(row.id, "switchover-throttled", facts)
    return outpaces


def _note(
    context: Context, replication: str, move: hypervisor.Move, facts: dict[str, int], known: PageIndex | None
) -> None:
    moved = move.finish()
    facts |= {
        "memory": moved.memory_bytes,
        "on_disks": known.hits * PAGE if known is not None else 0,
        "overlay": moved.disk_bytes,
        "downtime_ms": moved.downtime_ms,
        "ms": int(moved.seconds * 1000),
    }
    context.replications.change_source(
        replication,
        lambda d: msgspec.structs.replace(d, migration=facts),
        along=store.Along(events=[("migrated", facts)]),
    )


def _overlay(paths: Paths, replication: str, handover: SourceHandover, target: str) -> str:
    return str(paths.overlay(replication, handover.attempt, target))
