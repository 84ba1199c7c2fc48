# SPDX-License-Identifier: Apache-2.0
"""Destination side of a switchover until the VM has arrived: prepare, admit, and undo."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from seedship import capture, failpoints, hypervisor, link, store
from seedship.errors import AlreadyExists, AlreadyUnderWay, Conflict, DefinitionRefused, OutOfOrder
from seedship.model.books import destination as epochs
from seedship.model.books import ownership as books
from seedship.model.books.ownership import DestinationHandover
from seedship.workflows import messages
from seedship.workflows.context import Context
from seedship.workflows.documents import DestinationDocument
from seedship.workflows.host import make_folder
from seedship.workflows.protocol import MEMORY_IN_TRANSIT, Theirs, expect_memory
from seedship.workflows.provisioning import (
    choose_place,
    definition_findings,
    insist_admitted,
    insist_images,
    is_given_up_here,
    keep_attempt_platform,
    name_findings,
    preflight_failed,
    rule_findings_for_definition,
    undefine_given_up,
    write_platform,
)
from seedship.workflows.switchover import trial
from seedship.workflows.target import open_replica

PIN: Final = "switchover"
"""The pin that an attempt holds on the replica's layers."""


def prepare_incoming(context: Context, theirs: Theirs, request: messages.Prepare) -> messages.Prepared:
    """Prepare for the VM: freeze and pin the replica, create overlays, rebuild the definition. Repeatable.

    Raises:
        BlocksMissing, Conflict: The replica does not equal one instant of the source, or is at
            another epoch.
        NoSpace: There is no room for the VM's memory.
        PreflightFailed: The VM has changed into something that cannot come, or this site's libvirt
            refuses it.
        PoolUnavailable: The replica's images are in a storage pool that cannot be reached.
    """
    with context.locks.urgently(theirs.row.id):
        peer, row, document = theirs.now(context)
        document = document.accept_losses(request.accepted)
        if document.arriving is not None:
            old, prepared = document.arriving.record, document.arriving.definition
            if old.attempt == request.attempt:
                return messages.Prepared(prepared, pages=True)
            if not request.attempt:
                raise AlreadyUnderWay(
                    f"A switchover of {row.vm_name}",
                    "is under way",
                    f"Wait for it: `seedship replication watch {shlex.quote(row.vm_name)}`",
                )
            undo(context, row.id, old.attempt)
            _, document = context.replications.destination(row.id)
        insist_images(row.vm_name, document)
        trial.clear(context, row)
        insist_admitted(context, row, document)
        if request.probe:
            return _probe(context, peer, row, document, request)
        if row.generation != request.generation:
            raise OutOfOrder("switchover", f"generation {request.generation} here {row.generation}")
        _insist(context, peer, row, document, request)
        epochs.check_openable(document.book, row.vm_name, document.missing)
        if not document.book.applied == document.book.epoch == request.epoch:
            raise Conflict(f"The replica of {row.vm_name}", f"is at epoch {document.book.applied}", "Repeat")
        undefine_given_up(context.catalog, context.host, row.vm_uuid, row.peer)
        if hypervisor.state(context.host, row.vm_uuid) is not None:
            raise AlreadyExists(f"The VM {row.vm_name}", "exists at the destination", "Remove it there")
        hypervisor.nothing_to_forget(context.host, row.vm_uuid)
        paths = _overlays(context, row, document)
        definition, _ = hypervisor.rebuild(
            request.definition,
            choose_place(context, document, paths, request.attempt),
            expected_uuid=row.vm_uuid,
        )
        # Record the definition first: after a crash at any later step, it says what may exist here.
        context.replications.change_destination(row.id, lambda d: d.accept_losses(request.accepted).prepare(definition))
        write_platform(context.paths, row, definition, request.platform)
        _console(context, document)
        hypervisor.admit(row.vm_uuid)
        folder = context.paths.work(row.id)
        make_folder(folder)
        make_folder(context.paths.attempt(row.id, request.attempt))
        keep_attempt_platform(context.paths.attempt(row.id, request.attempt), definition, request.platform)
        if request.mode == "suspend":
            most = hypervisor.describe(definition).memory
            expect_memory(context.paths.attempt(row.id, request.attempt), request.memory, most)
        handover = DestinationHandover(request.attempt, request.generation, mode=request.mode)  # type: ignore[arg-type]
        context.replications.change_destination(
            row.id,
            lambda d: msgspec.structs.replace(
                d.make_ready(handover, definition, request.memory),
                book=epochs.freeze(d.book, True),
                admitted=False,
            ),
            event="switchover-started",
            along=store.Along(events=[("prepared", {"attempt": request.attempt})]),
        )
    failpoints.hit("takeover.prepared")
    return messages.Prepared(definition, pages=True)


def _probe(
    context: Context,
    peer: link.Peer,
    row: store.Replication,
    document: DestinationDocument,
    request: messages.Prepare,
) -> messages.Prepared:
    definition = _insist(context, peer, row, document, request)
    make_folder(context.paths.work(row.id))
    capture.reserve(context.paths.work(row.id), request.memory, MEMORY_IN_TRANSIT)
    return messages.Prepared(definition, pages=True)


def _insist(
    context: Context,
    peer: link.Peer,
    row: store.Replication,
    document: DestinationDocument,
    request: messages.Prepare,
) -> str:
    """Check everything that can be known in advance, and return the definition on the replica's present images.

    Raises:
        PreflightFailed: All blockers that the acceptance rule, the definition and this site's
            libvirt report.
        HypervisorUnreachable: libvirt does not answer.
    """
    paths = {
        spec.target: (str(Path(document.folder) / name), str(spec.format))
        for spec, name in zip(document.disks, document.names, strict=True)
    }
    here = choose_place(context, document, paths, request.attempt or None)
    findings = rule_findings_for_definition(context.config, context.identity, peer, row, request.definition)
    findings += definition_findings(context.host, row.vm_uuid, request.definition, here)
    with suppress(DefinitionRefused):  # The findings above already report it.
        name = hypervisor.claims(request.definition).name
        # A VM that was given up here makes way, once the VM is sure to come.
        returns = is_given_up_here(context.catalog, context.host, row.vm_uuid, row.peer)
        findings += name_findings(context.host, name, row.vm_uuid, returns=returns)
    blockers = [finding for finding in findings if finding.blocks]
    if blockers:
        raise preflight_failed(row.vm_name, blockers, listed=False)
    definition, _ = hypervisor.rebuild(request.definition, here, expected_uuid=row.vm_uuid)
    return definition


def _overlays(context: Context, row: store.Replication, document: DestinationDocument) -> dict[str, tuple[str, str]]:
    replica = open_replica(context, row, document)
    try:
        replica.layers.merge()
        replica.layers.pin(PIN)
        replica.layers.writable()
        return {
            spec.target: (str(replica.layers.path(spec.index)), replica.layers.format(spec.index))
            for spec in document.disks
        }
    finally:
        replica.close()


def _console(context: Context, document: DestinationDocument) -> None:
    path = choose_place(context, document, {}, None).console
    if path is not None:
        Path(path).touch()


def undo(context: Context, replication: str, attempt: str) -> None:
    """Destroy what an attempt left here and make the replica writable again. Repeatable; the caller holds the step
    lock.
    """
    row, document = context.replications.destination(replication)
    now = document.handover
    if now is None or now.attempt != attempt:
        return
    abandoned = books.destination_to(now, "abandoned")
    hypervisor.destroy_copy(context.host, row.vm_uuid, attempt)
    hypervisor.refuse(row.vm_uuid)
    context.paths.remove(context.paths.work(replication))
    if document.incoming:
        hypervisor.remove_platform(document.incoming)
    replica = open_replica(context, row, document)
    try:
        # Discard what an unfinished migration wrote.
        replica.layers.drop_above(PIN)
    finally:
        replica.close()
    context.replications.change_destination(
        replication,
        lambda d: msgspec.structs.replace(d.abandon(abandoned), book=epochs.freeze(d.book, False)),
        event="switchover-failed" if row.state == "switching-over" else None,
        along=store.Along(events=[("abandoned", {"attempt": attempt})]),
    )
