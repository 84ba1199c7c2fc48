# SPDX-License-Identifier: Apache-2.0
"""Fence a source whose VM the destination took over without it (a failover), once it learns of that.

A VM that still runs here is the second copy that the operator's confirmation allowed. It is suspended at once and
stays suspended, with its disks unchanged, for inspection. A paused VM is ended; one that is off stays off.
Autostart is turned off, and libvirt's hook refuses to start the VM (see ``hypervisor.hook``).
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

import msgspec

from seedship import failpoints, hypervisor, store
from seedship.errors import HypervisorError, VmNotFound, virsh_name
from seedship.hypervisor import Host
from seedship.workflows import messages
from seedship.workflows.context import Context, ReplicationStore
from seedship.workflows.documents import FencingRecord, Problem
from seedship.workflows.protocol import ReplicationToPeer
from seedship.workflows.source.snapshots.cut import drop_checkpoints
from seedship.workflows.source.snapshots.overlays import commit_offline, set_aside, without_overlays

log = logging.getLogger(__name__)

_ALARM: Final = "split-brain"


def answer_failover_notice(context: Context, ours: ReplicationToPeer, notice: messages.FailedOver) -> None:
    """Handle the destination's notice of a failover.

    The notice is recorded before any action. The ``fence`` step does the rest.
    """
    peer, row, _ = ours
    if row.generation >= notice.generation:
        return
    context.replications.change_source(
        row.id,
        lambda d: msgspec.structs.replace(
            d.with_spec(rpo=0.0).give_up(FencingRecord(notice.generation)),
            abort=False,
            clean=False,
        ),
        event="given-up",
        generation=notice.generation,
        along=store.Along(events=[("owner-recorded", {"generation": notice.generation, "owner": peer.site})]),
    )
    context.interrupts.interrupt(row.id)
    with suppress(HypervisorError):  # Stop it at once. The step repeats this.
        ensure_stopped(context, row.id)


def ensure_stopped(context: Context, replication: str) -> bool:
    """Make sure that the VM does not run here. Repeatable.

    Returns:
        True when the VM is off, or unknown to libvirt.

    Raises:
        HypervisorError: libvirt refused; repeat.
    """
    with context.locks.of(replication, "fence"):
        return _stop_vm(context.replications, context.host, replication)


def _stop_vm(replications: ReplicationStore, host: Host, replication: str) -> bool:
    row, document = replications.source(replication)
    fenced = document.fenced
    assert fenced is not None
    try:
        hypervisor.forbid_start(row.vm_uuid, fenced.generation)
        state = hypervisor.state(host, row.vm_uuid)
        if state in (None, "shut-off"):
            with suppress(VmNotFound):
                hypervisor.set_autostart(host, row.vm_uuid, False)
            return True
        if state == "paused" and fenced.suspended:
            return False
        if state == "paused":
            hypervisor.destroy(host, row.vm_uuid)
        else:
            _alarm(replications, row)  # Record it first: a VM that is found paused without a record is ended.
            failpoints.hit("fence.alarmed")
            hypervisor.suspend(host, row.vm_uuid)
        with suppress(HypervisorError):
            hypervisor.set_autostart(host, row.vm_uuid, False)
        return state == "paused"
    except VmNotFound:
        return True


def fence_source(context: Context, replication: str) -> None:
    """Run the fence step: the VM does not run here, and once it is off our images and bitmaps are removed. Repeatable.

    Raises:
        HypervisorError: libvirt refused; repeat.
    """
    if not ensure_stopped(context, replication):
        return
    row, document = context.replications.source(replication)
    defined = hypervisor.state(context.host, row.vm_uuid) is not None
    if defined:
        drop_checkpoints(context.host, replication, row.vm_uuid, off=True)
    commit_offline(context, replication, document, defined=defined)
    set_aside(context, replication)
    context.paths.remove_replication(replication)
    context.catalog.keys.destroy_all(replication)
    context.replications.change_source(
        replication,
        lambda d: msgspec.structs.replace(without_overlays(d), clean=True, problem=None),
    )


def _alarm(replications: ReplicationStore, row: store.Replication) -> None:
    _, document = replications.source(row.id)
    assert document.fenced is not None
    if document.fenced.suspended:  # Somebody resumed it.
        log.error("suspended %s: it ran here again although the other site owns it", row.vm_name)
    problem = Problem(
        "fence",
        "order.split-brain",
        f"{row.vm_name} ran here while the other site owned it: it is suspended, its disks are untouched",
        f"Save what only this copy has, then: virsh destroy {virsh_name(row.vm_name, row.vm_uuid)}",
        retry=False,
    )
    replications.change_source(
        row.id,
        lambda d: msgspec.structs.replace(
            d if d.fenced is None else d.give_up(FencingRecord(d.fenced.generation, suspended=True)),
            problem=problem,
        ),
        along=store.Along(events=[("alarm", {"what": _ALARM, "vm": row.vm_name})]),
    )
