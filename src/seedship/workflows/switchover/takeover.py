# SPDX-License-Identifier: Apache-2.0
"""Destination side of a switchover after the VM has arrived: hold, abandon, take over, settle.

``incoming`` covers the time before. ``live``: libvirt brings the memory. ``suspend``: memory
arrives in pieces, from which a paused copy is made. ``cold``: no memory comes, and the copy is
paused before its first instruction. The copy is transient. It is resumed only after the source's
record of the new generation has arrived and is recorded here. Until then the source may have it
destroyed.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from seedship import failpoints, hypervisor, nbd, store
from seedship.errors import Conflict, HypervisorError, HypervisorFailed, ImageInUse
from seedship.hypervisor import Host
from seedship.model.books import ownership as books
from seedship.model.books.ownership import DestinationPhase, Far
from seedship.paths import Paths
from seedship.workflows import messages
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.protocol import Theirs, arrived_pieces, restore_memory
from seedship.workflows.provisioning import write_missing_platform
from seedship.workflows.switchover import incoming
from seedship.workflows.target import find_memory_point, flatten_replica, forget_files, layers_of

log = logging.getLogger(__name__)

_AGENT_S: Final = 5.0


def answer_handover(context: Context, theirs: Theirs, request: messages.Handover) -> messages.HandoverReply:
    """Inspect, abandon or take over what came with an attempt. Repeatable.

    Raises:
        Fenced: The request names another attempt or generation.
        HypervisorError: libvirt refused. Call again.
    """
    _, row, document = theirs
    if request.action == "look":
        there = arrived_pieces(context.paths.attempt(row.id, request.attempt))
        return messages.HandoverReply(_far(context.host, row, document, request.attempt), there)
    with context.locks.urgently(row.id):
        if request.action == "abandon":
            incoming.undo(context, row.id, request.attempt)
        elif request.action == "hold":
            _hold(context, row.id, request.attempt)
        else:
            _take_over(context, row.id, request.attempt, request.generation)
        row, document = context.replications.destination(row.id)
        return messages.HandoverReply(_far(context.host, row, document, request.attempt))


def abandon_attempt(context: Context, replication: str, attempt: str) -> None:
    """Undo an attempt, as the source's queued message requests."""
    with context.locks.of(replication, "step"):
        incoming.undo(context, replication, attempt)


def settle_switchover(context: Context, replication: str) -> None:
    """Complete a switchover: put the running VM's disks on the replica's images, and remove the rest. Repeatable.

    Raises:
        HypervisorError: A merge failed. Call again.
    """
    row, document = context.replications.destination(replication)
    assert document.handover is not None
    if document.handover.phase in ("recorded", "resuming"):
        _take_over(context, replication, document.handover.attempt, document.handover.generation + 1)
    if _resumes(document) and hypervisor.set_clock(context.host, row.vm_uuid, _AGENT_S):
        context.catalog.events.note(replication, "clock-set")
    if _resumes(document):
        context.freeze_guard.suspect(row.vm_uuid)
    layers = layers_of(context.replications, context.paths, replication)
    if layers is not None:
        layers.check_pinned(incoming.PIN)
        # Recovery points end with the replica. Layers that clones are based on stay below the VM's
        # disks.
        flatten_replica(context, row, document, layers)
    context.journal.forget(document.book.lineage)
    forget_files(context.replications, context.paths, replication)
    context.catalog.keys.destroy_all(replication)

    def change(d: DestinationDocument) -> DestinationDocument:
        return msgspec.structs.replace(_to(d, "settled"), clean=True, problem=None, memory_points=())

    context.replications.change_destination(replication, change, event="switched-over")


def _far(host: Host, row: store.Replication, document: DestinationDocument, attempt: str) -> Far:
    now = document.handover
    if document.failover is not None:
        return "recorded"  # This site failed over: nothing runs at the source any more.
    if now is None or now.attempt != attempt or now.phase == "abandoned":
        return "nothing"
    state = hypervisor.state(host, row.vm_uuid)
    if now.phase != "prepared":
        return "running" if state == "running" else "recorded"
    if state == "paused" and hypervisor.is_whole(host, row.vm_uuid, attempt):
        return "holds-paused"
    return "nothing"


def _to(document: DestinationDocument, phase: DestinationPhase) -> DestinationDocument:
    assert document.handover is not None
    return document.take_over(books.destination_to(document.handover, phase))


def _take_over(context: Context, replication: str, attempt: str, generation: int) -> None:
    row, document = context.replications.destination(replication)
    now = document.handover
    books.check_take_over(now, attempt, generation)
    assert now is not None
    if now.phase == "prepared":
        failpoints.hit("takeover.before-record")
        context.replications.change_destination(
            replication,
            lambda d: _to(d, "recorded"),
            generation=generation,
            along=store.Along(events=[("owner-recorded", {"generation": generation, "owner": context.identity.site})]),
        )
        failpoints.hit("takeover.recorded")
        now = books.destination_to(now, "recorded")
    if now.phase == "recorded":  # Also after a failover, and after a crash that followed the record.
        hypervisor.forget_start(row.vm_uuid)
    if now.phase == "recorded" and now.mode == "suspend":
        _restore(context.paths, context.host, row, document, attempt)
        context.replications.change_destination(replication, lambda d: _to(d, "resuming"))
        failpoints.hit("takeover.resuming")
        now = books.destination_to(now, "resuming")
    if now.phase in ("recorded", "resuming"):
        _run_here(context, row, document, attempt)
        failpoints.hit("takeover.running")
        context.replications.change_destination(
            replication,
            lambda d: _to(d, "running"),
            along=store.Along(events=[("running", {"generation": generation})]),
        )


def _run_here(context: Context, row: store.Replication, document: DestinationDocument, attempt: str) -> None:
    """Run the VM. Its memory is in the paused copy; if that copy is gone, the VM boots from its disks."""
    assert document.handover is not None
    if hypervisor.state(context.host, row.vm_uuid) in (None, "shut-off"):
        write_missing_platform(row.vm_name, document.incoming, context.paths.attempt(row.id, attempt))
        hypervisor.define(context.host, document.incoming)
        hypervisor.nothing_to_forget(context.host, row.vm_uuid)
        hypervisor.start(context.host, row.vm_uuid)
        if _resumes(document):
            log.warning("the paused copy of %s was gone: it boots from its disks", row.vm_name)
            context.catalog.events.note(row.id, "booted-from-disks", {"attempt": attempt})
        return
    hypervisor.adopt(context.host, row.vm_uuid, document.incoming, attempt)


def _resumes(document: DestinationDocument) -> bool:
    """Return whether the VM resumes from memory. After a cold switchover, and a failover without memory, it boots."""
    if document.failover is not None:
        return bool(document.failover.memory)
    return document.handover is not None and document.handover.mode != "cold"


def _hold(context: Context, replication: str, attempt: str) -> None:
    """Make the paused copy: from the received memory, or (cold) of a VM about to boot. An existing copy is kept.

    Whatever libvirt or QEMU refuses here is refused while the source can still run the VM.

    Raises:
        HypervisorFailed: The memory did not arrive whole.
        ImageInUse: Another process has one of the VM's images open.
        Conflict: A different VM with this UUID exists here.
        HypervisorError: libvirt or QEMU refuses the VM.
    """
    row, document = context.replications.destination(replication)
    now = document.handover
    if now is None or (now.attempt, now.phase) != (attempt, "prepared") or now.mode == "live":
        return  # The reply reports what is here.
    if hypervisor.state(context.host, row.vm_uuid) is None:
        if now.mode == "cold":
            hypervisor.start_transient(context.host, document.incoming, paused=True)
        else:
            _insist_free(context.replications, context.paths, row, document)
            if not restore_memory(context.host, context.paths.attempt(replication, attempt), document.incoming):
                raise HypervisorFailed(row.vm_name, "its memory has not arrived whole")
    elif not hypervisor.is_whole(context.host, row.vm_uuid, attempt):
        raise Conflict(
            f"A VM with the UUID {row.vm_uuid}",
            f"exists at the destination, and is not the copy of {row.vm_name}",
            f"There: virsh domname {row.vm_uuid}; undefine it, or give it another UUID, then switch over again",
        )
    failpoints.hit("takeover.held")


def _insist_free(
    replications: ReplicationStore, paths: Paths, row: store.Replication, document: DestinationDocument
) -> None:
    """Check that no other process has the VM's images open.

    QEMU opens the images of a VM whose memory it receives without locks. If it cannot lock one when
    the memory has arrived, it fails only when the VM resumes, which is after the source's record
    (QEMU, migration/migration.c, ``process_incoming_migration_bh``).

    Raises:
        ImageInUse: Another process has one open.
    """
    layers = layers_of(replications, paths, row.id)
    assert layers is not None
    for spec in document.disks:
        path = layers.path(spec.index)
        if nbd.is_obstructed(path):
            raise ImageInUse(row.vm_name, str(path))


def _restore(paths: Paths, host: Host, row: store.Replication, document: DestinationDocument, attempt: str) -> None:
    """Remake the paused copy if it died before it ever ran. If that is impossible, the VM boots from its disks."""
    if hypervisor.state(host, row.vm_uuid) is not None:
        return
    folder = paths.attempt(row.id, attempt)
    if document.failover is not None and document.failover.memory:
        folder = find_memory_point(document, document.failover.memory).folder(document.folder)
    try:
        restore_memory(host, folder, document.incoming)
    except HypervisorError as error:
        log.warning("the memory of %s cannot be used: %s", row.vm_name, error)
